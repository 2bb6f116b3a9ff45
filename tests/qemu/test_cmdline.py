"""Golden command lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pytest_kvm.qemu.cmdline import build, is_built, port_settings
from pytest_kvm.qemu.plan import GDB, MONITOR, Channel, DriveFile, PlannedFirmware, plan_drives
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import DEVICES, binary
from tests.qemu.plans import MACS, plan, tail, words

EXTRAS = ("balloon", "rng", "pvpanic", "vmgenid", "rootports")

HEAD = (
    "/usr/bin/qemu -name guest=vm -nodefaults -no-user-config "
    "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
)
QMP = "-display none -chardev socket,id=qmp,fd=10,server=on,wait=off -mon chardev=qmp,mode=control"
CONSOLE = "-chardev socket,id=console,fd=11,server=on,wait=on -serial chardev:console"
SIZE = "-smp 1 -m 256M -action panic=pause"


# Whole lines


def test_q35_with_everything() -> None:
    spec = VMSpec(memory="1G", smp="4,sockets=2", cpu="max", boot="order=c", args=["-rtc", "base=utc"], hostfwd=[22])
    ports = [
        ("org.example.control", Channel("shell-control", 12)),
        ("org.example.0.in", Channel("shell-0.in", 13, connected=False)),
    ]
    planned = plan(
        spec,
        extras=EXTRAS,
        ports=ports,
        kernel=Path("/k/vmlinuz"),
        initrd=Path("/k/a,b.cpio"),
        append="console=ttyS0 a=1,2",
        drives=[(plan_drives(VMSpec(drives=[Drive(size="1M")]))[0], DriveFile(Path("/d/disk0.raw"), "raw"))],
    )
    assert build(planned, binary()) == words(
        HEAD,
        "-machine q35 -accel tcg",
        QMP,
        "-cpu max -smp 4,sockets=2 -m 1024M -action panic=pause",
        CONSOLE,
        "-kernel /k/vmlinuz -initrd /k/a,b.cpio -append 'console=ttyS0 a=1,2' -boot order=c",
        *(f"-device pcie-root-port,id=rootport{n},chassis={n + 1},slot={n + 1}" for n in range(4)),
        "-device virtio-balloon-pci,id=balloon0",
        "-object rng-random,id=rng0-source,filename=/dev/urandom",
        "-device virtio-rng-pci,id=rng0,rng=rng0-source",
        "-device pvpanic-pci,id=pvpanic0",
        "-device vmgenid,id=vmgenid0,guid=auto",
        "-device virtio-serial-pci,id=shell0,max_ports=31",
        "-chardev socket,id=shell-control,fd=12,server=on,wait=on",
        "-device virtserialport,id=port-shell-control,bus=shell0.0,chardev=shell-control,name=org.example.control",
        "-chardev socket,id=shell-0.in,fd=13,server=on,wait=off",
        "-device virtserialport,id=port-shell-0.in,bus=shell0.0,chardev=shell-0.in,name=org.example.0.in",
        "-netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device virtio-net-pci,id=net0,netdev=net0,mac=52:54:00:00:00:01,romfile=",
        """-blockdev '{"node-name": "disk0", "driver": "raw", "read-only": false,"""
        """ "file": {"driver": "file", "filename": "/d/disk0.raw"}}'""",
        "-device virtio-blk-pci,id=disk0,drive=disk0",
        "-rtc base=utc",
    )


def test_firmware_in_flash() -> None:
    firmware = PlannedFirmware(
        code=Path("/f/code.qcow2"),
        code_format="qcow2",
        template=Path("/f/vars"),
        variables=Path("/m/vars"),
        smm=True,
        secure=True,
    )
    assert build(plan(VMSpec(image=None, machine="q35,hpet=off"), firmware=firmware), binary()) == words(
        HEAD,
        "-machine q35,hpet=off,smm=on,pflash0=pflash0,pflash1=pflash1 -accel tcg",
        QMP,
        SIZE,
        CONSOLE,
        "-global driver=cfi.pflash01,property=secure,value=on",
        """-blockdev '{"node-name": "pflash0", "driver": "qcow2", "read-only": true,"""
        """ "file": {"driver": "file", "filename": "/f/code.qcow2"}}'""",
        """-blockdev '{"node-name": "pflash1", "driver": "raw", "read-only": false,"""
        """ "file": {"driver": "file", "filename": "/m/vars"}}'""",
    )


def test_firmware_that_is_loaded() -> None:
    firmware = PlannedFirmware(code=Path("/f/a,b.bin"), flash=False)
    assert tail(plan(VMSpec(image=None), firmware=firmware)) == ["-bios", "/f/a,b.bin"]


@pytest.mark.parametrize(("tpm", "device"), [(True, "tpm-crb"), ("2.0", "tpm-crb"), ("1.2", "tpm-tis")])
def test_tpm(tpm: bool | str, device: str) -> None:
    assert tail(plan(VMSpec(image=None, tpm=tpm), tpm=Channel("swtpm", 15))) == words(
        f"-chardev socket,id=swtpm,fd=15 -tpmdev emulator,id=tpm0,chardev=swtpm -device {device},id=tpm0,tpmdev=tpm0"
    )


def test_board() -> None:
    spec = VMSpec(
        image=None,
        watchdog="pause",
        fw_cfg={"opt/a": "x,y", "opt/b": Path("/f/b,c"), "opt/bytes": b"in a file by then"},
        smbios={1: {"serial": "a,b", "sku": 3}, 8: [{"port_type": 1}, {"port_type": 2}], 11: {"value": ["x", "y"]}},
    )
    assert tail(plan(spec, cid=1234)) == words(
        "-action watchdog=pause -device i6300esb,id=watchdog0 -device vhost-vsock-pci,id=vsock0,guest-cid=1234",
        "-fw_cfg name=opt/a,string=x,,y -fw_cfg name=opt/b,file=/f/b,,c",
        "-smbios type=1,serial=a,,b,sku=3 -smbios type=8,port_type=1 -smbios type=8,port_type=2",
        "-smbios type=11,value=x,value=y",
    )


def test_a_watchdog_of_the_tests_own() -> None:
    spec = VMSpec(image=None, watchdog="reset", devices=["ib700,id=dog"])
    assert tail(plan(spec)) == words("-action watchdog=reset -device ib700,id=dog")


def test_pc_has_no_root_ports() -> None:
    assert build(plan(VMSpec(machine="pc", nics=[]), extras=EXTRAS), binary()) == words(
        HEAD,
        "-machine pc -accel tcg",
        QMP,
        SIZE,
        CONSOLE,
        "-device virtio-balloon-pci,id=balloon0",
        "-object rng-random,id=rng0-source,filename=/dev/urandom",
        "-device virtio-rng-pci,id=rng0,rng=rng0-source",
        "-device pvpanic-pci,id=pvpanic0",
        "-device vmgenid,id=vmgenid0,guid=auto",
    )


def test_microvm_has_its_devices_on_mmio() -> None:
    spec = VMSpec(machine="microvm,pit=off", drives=[Drive(size="1M"), Drive(size="1M", interface="scsi")])
    planned = plan(
        spec,
        extras=EXTRAS,
        kernel=Path("/k"),
        ports=[("p", Channel("shell-p", 12))],
        drives=[(each, DriveFile(Path(f"/{each.id}"), "raw")) for each in plan_drives(spec)],
    )
    command = build(planned, binary())
    assert command[: len(words(HEAD))] == words(HEAD)
    assert [value for name, value in itertools.pairwise(command) if name == "-device"] == [
        "virtio-balloon-device,id=balloon0",
        "virtio-rng-device,id=rng0,rng=rng0-source",
        "virtio-serial-device,id=shell0,max_ports=31",
        "virtserialport,id=port-shell-p,bus=shell0.0,chardev=shell-p,name=p",
        "virtio-net-device,id=net0,netdev=net0,mac=52:54:00:00:00:01",
        "virtio-scsi-device,id=scsi0",
        "virtio-blk-device,id=disk0,drive=disk0",
        "scsi-hd,id=disk1,drive=disk1,bus=scsi0.0,scsi-id=0",
    ]


@pytest.mark.parametrize(("machine", "bus"), [("q35", "virtio-serial-pci"), ("microvm", "virtio-serial-device")])
def test_the_guest_agent_has_a_bus_of_its_own(machine: str, bus: str) -> None:
    port = "virtserialport,id=port-agent,bus=agent0.0,chardev=agent,name=org.qemu.guest_agent.0"
    spec = VMSpec(machine=machine, nics=[])
    alone = words(f"-device {bus},id=agent0", "-chardev socket,id=agent,fd=13,server=on,wait=on", f"-device {port}")
    assert tail(plan(spec, agent=Channel("agent", 13))) == alone
    beside = tail(plan(spec, agent=Channel("agent", 13), ports=[("p", Channel("shell-p", 12))]))
    assert beside[-len(alone) :] == alone
    assert beside[:2] == words(f"-device {bus},id=shell0,max_ports=31")


def test_none_has_qmp_only() -> None:
    spec = VMSpec(image=None, machine="none", args=["-S"])
    assert build(plan(spec), binary()) == words(HEAD, "-machine none -accel tcg", QMP, "-S")


def test_a_monitor_for_somebody_else_waits_for_nobody() -> None:
    spec = VMSpec(image=None, machine="none")
    planned = plan(spec, monitor=Channel(MONITOR, 14, connected=False), incoming=True)
    assert build(planned, binary()) == words(
        HEAD,
        "-machine none -accel tcg",
        QMP,
        "-chardev socket,id=monitor,fd=14,server=on,wait=off -mon chardev=monitor,mode=control",
        "-S -incoming defer",
    )


def test_gdb_is_waited_for_by_nobody_but_a_halted_machine() -> None:
    gdb = Channel(GDB, 14, connected=False)
    spec = VMSpec(image=None, machine="none")
    words_of_gdb = "-chardev socket,id=gdb,fd=14,server=on,wait=off -gdb chardev:gdb"
    assert build(plan(spec, gdb=gdb), binary()) == words(HEAD, "-machine none -accel tcg", QMP, words_of_gdb)
    command = build(plan(spec, gdb=gdb, halted=True), binary())
    assert command == words(HEAD, "-machine none -accel tcg", QMP, words_of_gdb, "-S")


# What the binary cannot


def test_an_old_qemu_knows_no_action() -> None:
    assert "-action" in build(plan(VMSpec(image=None)), binary(version=(6, 0, 0)))
    old = build(plan(VMSpec(image=None)), binary(version=(5, 2, 0)))
    assert old == [word for word in build(plan(VMSpec(image=None)), binary()) if word not in ("-action", "panic=pause")]


def test_a_qemu_without_seccomp() -> None:
    assert build(plan(VMSpec(image=None, machine="none")), binary(sandbox=False)) == words(
        "/usr/bin/qemu -name guest=vm -nodefaults -no-user-config -machine none -accel tcg", QMP
    )


def test_extras_that_the_binary_does_not_have_are_left_out() -> None:
    planned = plan(VMSpec(nics=[]), extras=EXTRAS)
    command = build(planned, binary(devices=frozenset({"virtio-balloon-pci"})))
    assert command[command.index("chardev:console") + 1 :] == words("-device virtio-balloon-pci,id=balloon0")


# Accelerator and CPU


@pytest.mark.parametrize(
    ("accel", "cpu", "expected"),
    [
        ("tcg", None, None),
        ("tcg", "max", "max"),
        ("kvm", None, "host"),
        ("kvm,kernel-irqchip=split", None, "host"),
        ("kvm", "qemu64", "qemu64"),
    ],
)
def test_kvm_gets_the_hosts_cpu(accel: str, cpu: str | None, expected: str | None) -> None:
    command = build(plan(VMSpec(image=None, cpu=cpu), accel=accel), binary())
    assert command[command.index("-accel") + 1] == accel
    assert (command[command.index("-cpu") + 1] if "-cpu" in command else None) == expected


@pytest.mark.parametrize(
    ("accel", "version", "machine", "model", "expected"),
    [
        ("tcg", (7, 2, 22), None, None, "qemu64,-cx16"),
        ("tcg,thread=single", (7, 2, 22), "microvm", None, "qemu64,-cx16"),
        ("tcg", (7, 2, 22), "pc", "qemu64", "qemu64"),
        ("tcg", (7, 2, 22), "isapc", None, None),
        ("tcg", (8, 0, 0), None, None, None),
        ("kvm", (7, 2, 22), None, None, "host"),
    ],
)
def test_an_instruction_that_is_emulated_wrongly(
    accel: str, version: tuple[int, ...], machine: str | None, model: str | None, expected: str | None
) -> None:
    known = binary(version=version, devices=DEVICES | {"qemu64-x86_64-cpu"})
    command = build(plan(VMSpec(image=None, machine=machine, cpu=model), accel=accel), known)
    assert (command[command.index("-cpu") + 1] if "-cpu" in command else None) == expected


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (512, "512M"),
        ("2G", "2048M"),
        ("1048577K", "1073742848B"),
        ("256M,slots=4,maxmem=1G", "256M,slots=4,maxmem=1073741824B"),
    ],
)
def test_memory(memory: int | str, text: str) -> None:
    command = build(plan(VMSpec(image=None, memory=memory)), binary())
    assert command[command.index("-m") + 1] == text


# Extras


@pytest.mark.parametrize(
    ("device", "left"),
    [
        ("virtio-rng-pci,max-bytes=64,period=1000", ("balloon0", "pvpanic0", "vmgenid0", "rootport3")),
        ("virtio-balloon-pci-non-transitional", ("rng0", "pvpanic0", "vmgenid0", "rootport3")),
        ("pvpanic", ("balloon0", "rng0", "vmgenid0", "rootport3")),
        ("vmgenid,guid=auto", ("balloon0", "rng0", "pvpanic0", "rootport3")),
        ("pcie-root-port,id=mine", ("balloon0", "rng0", "pvpanic0", "vmgenid0")),
        ("edu", ("balloon0", "rng0", "pvpanic0", "vmgenid0", "rootport3")),
    ],
)
def test_a_declared_device_takes_the_place_of_an_extra(device: str, left: tuple[str, ...]) -> None:
    command = tail(plan(VMSpec(nics=[], devices=[device]), extras=EXTRAS))
    ids = {part for word in command for part in word.split(",") if part.startswith("id=")}
    known = {"balloon0", "rng0", "pvpanic0", "vmgenid0", "rootport3"}
    assert {name for name in known if f"id={name}" in ids} == set(left)
    assert command[-2:] == ["-device", device]


def test_no_extras() -> None:
    assert tail(plan(VMSpec(nics=[]), extras=())) == []


# Network


def test_a_second_nic_has_a_network_of_its_own() -> None:
    spec = VMSpec(nics=[Nic(model="e1000"), Nic(properties={"mq": True, "host_mtu": 1400})], hostfwd=[22])
    assert tail(plan(spec)) == words(
        "-netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device e1000,id=net0,netdev=net0,mac=52:54:00:00:00:01",
        "-netdev user,id=net1,net=10.0.3.0/24,restrict=on",
        "-device virtio-net-pci,id=net1,netdev=net1,mac=52:54:00:00:00:02,mq=on,host_mtu=1400",
    )


@pytest.mark.parametrize(
    ("internet", "netdev"),
    [
        (False, "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=udp:127.0.0.1:5353-:53"),
        (True, "user,id=net0,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=udp:127.0.0.1:5353-:53"),
    ],
)
def test_forwards_work_with_and_without_internet(internet: bool, netdev: str) -> None:
    assert tail(plan(VMSpec(internet=internet, hostfwd=[80, "udp::5353-:53"])))[1] == netdev


@pytest.mark.parametrize(
    ("model", "device"), [("virtio", "virtio-net-pci"), ("ne2k", "ne2k_pci"), ("rtl8139", "rtl8139"), ("x1", "x1")]
)
def test_models(model: str, device: str) -> None:
    assert tail(plan(VMSpec(nics=[Nic(model=model)])))[3] == f"{device},id=net0,netdev=net0,mac={MACS[0]}"


@pytest.mark.parametrize(("boot", "romfile"), [(None, True), ("order=c", True), ("order=n", False), ("menu=on", True)])
def test_only_a_nic_that_nobody_boots_from_goes_without_its_rom(boot: str | None, romfile: bool) -> None:
    command = tail(plan(VMSpec(boot=boot), kernel=Path("/k")))
    assert command[-1].endswith(",romfile=") is romfile
    assert not tail(plan(VMSpec(boot=boot)))[-1].endswith(",romfile=")


def test_declared_devices_come_after_the_drives_and_args_last() -> None:
    spec = VMSpec(nics=[], devices=["edu", "ide-hd,drive=x"], args=["-device", "last", "-foo,=bar"])
    assert tail(plan(spec)) == words("-device edu -device ide-hd,drive=x -device last -foo,=bar")


def test_port_settings() -> None:
    assert port_settings("org.example.1.out", "shell-1.out") == {
        "id": "port-shell-1.out",
        "bus": "shell0.0",
        "chardev": "shell-1.out",
        "name": "org.example.1.out",
    }


@pytest.mark.parametrize("machine", [None, "microvm", "none"])
def test_our_own_are_known(machine: str | None) -> None:
    command = build(plan(VMSpec(name="server", machine=machine)), binary())
    assert is_built(command)
    assert is_built(["/bin/sh", "/opt/wrapper", *command[1:], ""])


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("qemu-system-x86_64", "-name", "guest=vm", "-qmp", "stdio"),
        ("qemu-system-x86_64", "-name", "vm", "-mon", "chardev=qmp,mode=control"),
        ("less", "-name", "-mon"),
    ],
)
def test_others_are_not(command: tuple[str, ...]) -> None:
    assert not is_built(command)
