"""VMSpec, Drive and Nic: what is accepted, what is refused and how it is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.postponing import postponing
from pytest_kvm.spec.reference import FromFixture
from pytest_kvm.spec.vm import VMSpec, from_folder, resolve

PATTERN = re.compile("tests done")


def test_defaults() -> None:
    spec = VMSpec()
    assert (spec.name, spec.image, spec.memory, spec.smp) == ("vm", "tiny", None, 1)
    assert (spec.nics, spec.extras, spec.ready, spec.timeout) == (None, None, None, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VMSpec(image=None),
        lambda: VMSpec(image=None, ready=PATTERN, kernel="bzImage", initrd=Path("test.cpio"), append="panic=-1"),
        lambda: VMSpec(image=None, nics=[Nic()], hostfwd=[22], internet=True),
        lambda: VMSpec(image=None, machine="none"),
        lambda: VMSpec(initrd="own.cpio"),
        lambda: VMSpec(accel="tcg,thread=single", cpu="max,-sse4.2", boot="cd", extras=[], autostart=False),
        lambda: VMSpec(nics=[Nic(mac="52-54-00-12-34-56"), Nic(model="e1000e", id="wan")]),
        lambda: VMSpec(hostfwd=[8080, "udp::0-:8080", "tcp::2222-:22"], devices=("virtio-rng-pci",), timeout=1.5),
        lambda: VMSpec(drives=[Drive("a", index=0), Drive("b", index=0, interface="ide"), Drive("a")]),
        lambda: VMSpec(hostfwd=FromFixture("ports"), nics=[]),
        lambda: VMSpec(tpm="1.2", watchdog="inject-nmi", vsock=True, fw_cfg={}, smbios={}),
        lambda: VMSpec(
            fw_cfg={"opt/a": "x,y", "opt/org.example/b": b"\0", "opt/c": Path("c"), "opt/d": FromFixture("d")}
        ),
        lambda: VMSpec(
            smbios={0: {"uefi": True}, 1: {"serial": "S,1"}, 8: [{"port_type": 3}, {}], 11: {"value": ["a", "b"]}}
        ),
        lambda: VMSpec(smbios={1: {"uuid": "f00dfeed-1111-2222-3333-444455556666", "sku": FromFixture("sku")}}),
        lambda: VMSpec(firmware="uefi", boot="menu=on,strict=on"),
        lambda: VMSpec(firmware="bios", boot="order=d"),
        lambda: VMSpec(firmware=Path("OVMF"), boot="order=d"),
        lambda: Drive("data.qcow2", interface="ide", readonly=True),
        lambda: Drive("a.raw", snapshot=False, format="raw", properties={"logical_block_size": 4096}),
        lambda: Drive(size="1440k", interface="floppy", index=1),
        lambda: Drive(size="1M", discard="unmap", detect_zeroes="unmap"),
    ],
)
def test_accepted(make: Callable[[], object]) -> None:
    make()


WRONG_VM: list[tuple[dict[str, object], str]] = [
    ({"memmory": "1G"}, "vm(memmory=…): unknown keyword 'memmory'; did you mean 'memory'?"),
    (
        {"xyzzy": 1},
        "vm(xyzzy=…): unknown keyword 'xyzzy'; valid are name, image, machine, accel, cpu, smp, "
        "memory, numa, kernel, initrd, "
        "append, firmware, boot, drives, cdrom, nics, hostfwd, internet, user_data, meta_data, seed, shares, "
        "devices, properties, extras, autostart, ready, timeout, "
        "start, gdb, tpm, watchdog, vsock, fw_cfg, smbios or args",
    ),
    (
        {"name": "a b"},
        "vm(name='a b'): expected a name (letters, digits, '-', '.', '_'; at most 40), got 'a b'",
    ),
    ({"image": 3}, "vm(image=3): expected the name of an image, a path, Image(...) or None, got 3 (int)"),
    ({"image": ""}, "vm(image=''): expected a path, got ''"),
    ({"machine": 3}, "vm(machine=3): expected the name of a machine such as 'q35', got 3 (int)"),
    ({"accel": "kmv"}, "vm(accel='kmv'): unknown accelerator 'kmv'; did you mean 'kvm'?"),
    (
        {"accel": "auto,thread=single"},
        "vm(accel='auto,thread=single'): 'auto' takes no properties; name the accelerator, as in 'tcg,thread=single'",
    ),
    ({"smp": 0}, "vm(smp=0): cpus must be at least 1, got 0"),
    ({"kernel": b"x"}, "vm(kernel=b'x'): expected a path, got b'x' (bytes)"),
    ({"append": 3}, "vm(append=3): expected text for the kernel's command line, got 3 (int)"),
    ({"append": "a\0b"}, r"vm(append='a\x00b'): 'a\x00b' has a NUL character, which no command line can carry"),
    (
        {"drives": Drive("a")},
        "vm(drives=Drive(file='a')): expected a list of Drive(...), got Drive(file='a') (Drive); "
        "write drives=[Drive(...)]",
    ),
    (
        {"firmware": 3},
        "vm(firmware=3): expected 'bios', 'uefi', 'uefi-secure' or the path of a firmware's file, got 3 (int)",
    ),
    ({"firmware": "efi"}, "vm(firmware='efi'): unknown firmware 'efi'; did you mean 'uefi'?"),
    (
        {"watchdog": "bark"},
        "vm(watchdog='bark'): unknown action 'bark'; valid are reset, shutdown, poweroff, inject-nmi, "
        "pause, debug or none",
    ),
    ({"watchdog": "rest"}, "vm(watchdog='rest'): unknown action 'rest'; did you mean 'reset'?"),
    ({"watchdog": "itco,pause"}, "vm(watchdog='itco,pause'): unknown watchdog 'itco'; valid are i6300esb or iTCO"),
    ({"vsock": 3}, "vm(vsock=3): expected True or False, got 3 (int)"),
    (
        {"machine": "none", "fw_cfg": {"opt/a": "b"}},
        "vm(machine='none', fw_cfg={'opt/a': 'b'}): machine 'none' has no fw_cfg",
    ),
    (
        {"fw_cfg": ["opt/a"]},
        "vm(fw_cfg=['opt/a']): expected a mapping such as {'opt/org.example/name': 'text'}, got ['opt/a'] (list)",
    ),
    (
        {"fw_cfg": {"etc/a": "b"}},
        "vm(fw_cfg={'etc/a': 'b'}): fw_cfg 'etc/a': names begin with 'opt/', and have no spaces: opt/org.example/name",
    ),
    (
        {"fw_cfg": {"opt/a": 3}},
        "vm(fw_cfg={'opt/a': 3}): expected text, bytes or a pathlib.Path for opt/a, got 3 (int)",
    ),
    ({"fw_cfg": {"opt/a": ""}}, "vm(fw_cfg={'opt/a': ''}): opt/a is empty, which QEMU does not take"),
    (
        {"fw_cfg": {"opt/" + "a" * 52: "b"}},
        f"vm(fw_cfg={{'opt/{'a' * 52}': 'b'}}): fw_cfg 'opt/{'a' * 52}': 56 characters are more than QEMU has room "
        "for, 55",
    ),
    ({"smbios": {5: {}}}, "vm(smbios={5: {}}): QEMU has no SMBIOS type 5; there are 0, 1, 2, 3, 4, 8, 9, 11, 17 or 41"),
    ({"smbios": {"1": {}}}, "vm(smbios={'1': {}}): expected the number of an SMBIOS type, got '1' (str)"),
    ({"smbios": {1: [{}]}}, "vm(smbios={1: [{}]}): there is one table of SMBIOS type 1; several of 8, 9 or 41"),
    ({"smbios": {1: "S1"}}, "vm(smbios={1: 'S1'}): expected a mapping of the fields of SMBIOS type 1, got 'S1' (str)"),
    (
        {"smbios": {1: {"seral": "S1"}}},
        "vm(smbios={1: {'seral': 'S1'}}): SMBIOS type 1 has no field 'seral'; did you mean 'serial'?",
    ),
    (
        {"smbios": {1: {"uuid": "S1"}}},
        "vm(smbios={1: {'uuid': 'S1'}}): expected a UUID for uuid of SMBIOS type 1, got 'S1'",
    ),
    (
        {"smbios": {3: {"asset": None}}},
        "vm(smbios={3: {'asset': None}}): expected text or a number for asset of SMBIOS type 3, got None",
    ),
    ({"tpm": "2"}, "vm(tpm='2'): expected True, False, '2.0' or '1.2', got '2'"),
    ({"tpm": 2}, "vm(tpm=2): expected True, False, '2.0' or '1.2', got 2 (int)"),
    ({"machine": "none", "tpm": True}, "vm(machine='none', tpm=True): machine 'none' has nothing that could use a TPM"),
    (
        {"machine": "none", "firmware": "uefi"},
        "vm(machine='none', firmware='uefi'): machine 'none' has no CPU that could run firmware",
    ),
    (
        {"firmware": "uefi-secure", "boot": "once=d"},
        "vm(firmware='uefi-secure', boot='once=d'): UEFI does not heed order= and once=; give what shall be booted "
        "first bootindex=0, as in Drive(…, bootindex=0)",
    ),
    ({"drives": ["a"]}, "vm(drives=['a']): expected Drive(...), got 'a' (str); write Drive('a')"),
    ({"nics": ["e1000"]}, "vm(nics=['e1000']): expected Nic(...), got 'e1000' (str); write Nic(model='e1000')"),
    ({"hostfwd": [70000]}, "vm(hostfwd=[70000]): the guest's port must be from 1 to 65535, got 70000"),
    ({"internet": "yes"}, "vm(internet='yes'): expected True or False, got 'yes' (str)"),
    (
        {"devices": "virtio-rng-pci"},
        "vm(devices='virtio-rng-pci'): expected a list of devices, got 'virtio-rng-pci' (str); "
        "write devices=['virtio-rng-pci']",
    ),
    ({"extras": ["baloon"]}, "vm(extras=['baloon']): unknown extra 'baloon'; did you mean 'balloon'?"),
    ({"extras": ["rng", "rng"]}, "vm(extras=['rng', 'rng']): extra 'rng' is given twice"),
    (
        {"ready": "tests done"},
        "vm(ready='tests done'): expected 'shell', 'ssh', 'agent', 'login' or 'none', or a compiled pattern, "
        "got 'tests done'; for a pattern write re.compile('tests done')",
    ),
    ({"ready": re.compile(b"x")}, "vm(ready=re.compile(b'x')): expected a pattern of text, got b'x' (bytes)"),
    ({"timeout": 0}, "vm(timeout=0): expected a number of seconds, more than 0, got 0"),
    ({"timeout": float("inf")}, "vm(timeout=inf): expected a number of seconds, more than 0, got inf"),
    ({"timeout": "1m"}, "vm(timeout='1m'): expected a number of seconds, more than 0, got '1m' (str)"),
    ({"args": ["-rtc", 1]}, "vm(args=['-rtc', 1]): expected one of QEMU's arguments, got 1 (int)"),
    ({"gdb": "yes"}, "vm(gdb='yes'): expected True or False, got 'yes' (str)"),
    (
        {"machine": "none", "gdb": True},
        "vm(machine='none', gdb=True): a machine without a CPU has nothing that could be debugged",
    ),
    (
        {"image": None, "initrd": "a"},
        "vm(image=None, initrd='a'): an initrd needs a kernel; give kernel= or an image",
    ),
    (
        {"image": None, "ready": "ssh"},
        "vm(image=None, ready='ssh'): without an image there is no shell, SSH or agent that we know; "
        "use 'login' or a compiled pattern",
    ),
    (
        {"nics": [], "hostfwd": [22]},
        "vm(nics=[], hostfwd=[22]): a machine without a network cannot forward a port; leave out one of them",
    ),
    (
        {"nics": [], "internet": True},
        "vm(nics=[], internet=True): a machine without a network cannot reach the internet; leave out one of them",
    ),
    (
        {"image": None, "hostfwd": [22]},
        "vm(image=None, hostfwd=[22]): a machine without an image has no network by default and cannot forward a "
        "port; add nics=[Nic()]",
    ),
    (
        {"machine": "none", "kernel": "k"},
        "vm(machine='none', kernel='k'): machine 'none' has no CPU that could run a kernel",
    ),
    ({"drives": [Drive("a", id="x"), Drive("b", id="x")]}, "vm(drives=…): two drives have id 'x'"),
    (
        {"drives": [Drive("a", index=1), Drive("b", index=1)]},
        "vm(drives=…): two drives have index 1 of interface 'virtio'",
    ),
    (
        {"nics": [Nic(mac="52:54:00:AA:00:01"), Nic(mac="52:54:00:aa:00:01")]},
        "vm(nics=…): two NICs have mac '52:54:00:aa:00:01'",
    ),
    ({"drives": [Drive("a", id="x")], "nics": [Nic(id="x")]}, "vm(drives=…, nics=…): a drive and a NIC have id 'x'"),
    ({"hostfwd": [22, "tcp::22-:22"]}, "vm(hostfwd=[22, 'tcp::22-:22']): tcp port 22 of the guest is forwarded twice"),
    (
        {"hostfwd": ["tcp::80-:80", "tcp::80-:81"]},
        "vm(hostfwd=['tcp::80-:80', 'tcp::80-:81']): tcp port 80 of the host is forwarded twice",
    ),
]


@pytest.mark.parametrize(("given", "text"), WRONG_VM)
def test_wrong_vm(given: dict[str, object], text: str) -> None:
    for make in (VMSpec, VMSpec().replace):
        with pytest.raises(SpecError) as caught:
            make(**given)  # type: ignore[arg-type]
        assert str(caught.value) == text


WRONG_DRIVES: list[tuple[dict[str, object], str]] = [
    ({}, "Drive(file=None, size=None): give a file or a size, not neither"),
    ({"file": "a", "size": "1G"}, "Drive(file='a', size='1G'): give a file or a size, not both"),
    ({"size": 64}, "Drive(size=64): a disk has at least 512 bytes, got 64; write '64M' for 64 MiB"),
    ({"file": "a", "format": "qcov2"}, "Drive(format='qcov2'): unknown value 'qcov2'; did you mean 'qcow2'?"),
    (
        {"file": "a", "interface": "sata"},
        "Drive(interface='sata'): unknown value 'sata'; valid are virtio, ide, scsi, nvme, usb or floppy",
    ),
    ({"file": "a", "discard": "on"}, "Drive(discard='on'): unknown value 'on'; valid are ignore or unmap"),
    (
        {"file": "a", "detect_zeroes": "unmap"},
        "Drive(detect_zeroes='unmap', discard=None): zeroes are unmapped with discard='unmap' only",
    ),
    ({"file": "a", "index": -1}, "Drive(index=-1): expected an index of at least 0, got -1"),
    ({"file": "a", "index": True}, "Drive(index=True): expected an index of at least 0, got True (bool)"),
    ({"file": "a", "media": "tape"}, "Drive(media='tape'): unknown value 'tape'; valid are disk or cdrom"),
    (
        {"file": "a", "id": "1"},
        "Drive(id='1'): expected a QEMU id (a letter, then letters, digits, '-', '.' or '_'), got '1'",
    ),
    (
        {"file": "a", "snapshot": False, "readonly": True},
        "Drive(snapshot=False, readonly=True): nothing is written to a read-only drive",
    ),
    (
        {"size": "1G", "snapshot": True},
        "Drive(size='1G', snapshot=True): a fresh disk is thrown away anyway; leave out snapshot=",
    ),
    (
        {"size": "1G", "readonly": True},
        "Drive(size='1G', readonly=True): an empty disk that cannot be written is of no use",
    ),
    ({"size": "1G", "media": "cdrom"}, "Drive(size='1G', media='cdrom'): a CD-ROM needs a file"),
    (
        {"file": "a", "media": "cdrom", "interface": "nvme"},
        "Drive(media='cdrom', interface='nvme'): a CD-ROM is on ide, scsi or usb",
    ),
    (
        {"file": "a", "serial": "x" * 21},
        f"Drive(interface='virtio', serial='{'x' * 21}'): it has room for 20 bytes of serial number",
    ),
    (
        {"file": "a", "properties": {"drive": "x"}},
        "Drive(properties={'drive': 'x'}): the property 'drive' is set by the plugin; it cannot be given here",
    ),
    ({"file": "a", "sise": 1}, "Drive(sise=…): unknown keyword 'sise'; did you mean 'size'?"),
]


@pytest.mark.parametrize(("given", "text"), WRONG_DRIVES)
def test_wrong_drives(given: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Drive(**given)  # type: ignore[arg-type]
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"mac": "52:54:00"},
            "Nic(mac='52:54:00'): expected a MAC address such as '52:54:00:12:34:56', got '52:54:00'",
        ),
        (
            {"mac": "53:54:00:12:34:56"},
            "Nic(mac='53:54:00:12:34:56'): '53:54:00:12:34:56' is a multicast address: "
            "the first octet of an interface's must be even",
        ),
        (
            {"mac": "00:00:00:00:00:00"},
            "Nic(mac='00:00:00:00:00:00'): '00:00:00:00:00:00' is no address of an interface",
        ),
        (
            {"model": "e1000,mac=x"},
            "Nic(model='e1000,mac=x'): expected the name of a network device such as 'virtio' or 'e1000e', "
            "got 'e1000,mac=x'",
        ),
        ({"modle": "e1000"}, "Nic(modle=…): unknown keyword 'modle'; did you mean 'model'?"),
    ],
)
def test_wrong_nics(given: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Nic(**given)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_what_a_drive_implies() -> None:
    assert (Drive("a").interface, Drive("a").snapshot) == ("virtio", True)
    assert (Drive("a.iso", media="cdrom").interface, Drive(size="1G").snapshot) == ("ide", False)
    assert repr(Drive("a.iso", media="cdrom")) == "Drive(file='a.iso', media='cdrom')"
    assert repr(Nic(model="e1000")) == "Nic(model='e1000')"


def test_specs_do_not_change() -> None:
    ports: list[int | str] = [22]
    spec = VMSpec(hostfwd=ports)
    ports.append(23)
    assert spec.hostfwd == (22,)
    with pytest.raises(FrozenInstanceError):
        spec.memory = "1G"  # type: ignore[misc]


def test_an_error_is_kept_until_the_drive_is_used() -> None:
    with postponing():
        drive = Drive("a", cache="fast")
    with pytest.raises(SpecError, match="unknown value 'fast'"):
        VMSpec(drives=[drive])
    with pytest.raises(SpecError, match="unknown value 'fast'"):
        Drive("a", cache="fast")


def test_fixtures_stand_in_for_values(tmp_path: Path) -> None:
    spec = VMSpec(kernel=FromFixture("kernel"), drives=[Drive(FromFixture("disk"), index=1), FromFixture("drive")])
    values: dict[str, object] = {"kernel": "vmlinuz", "disk": tmp_path / "a", "drive": Drive(size="1M", index=1)}
    with pytest.raises(SpecError, match="two drives have index 1"):
        resolve(spec, values.__getitem__)
    values["drive"] = Drive(size="1M")
    resolved = resolve(spec, values.__getitem__, base=Path("/base"))
    assert resolved.kernel == Path("/base/vmlinuz")
    assert [drive.file for drive in resolved.drives] == [tmp_path / "a", None]
    with pytest.raises(SpecError) as caught:
        resolve(VMSpec(smp=FromFixture("smp")), {"smp": "two"}.__getitem__)
    assert str(caught.value).startswith("vm(smp='two'): expected a number of CPUs")


@pytest.mark.parametrize("name", ["", "a b", 3])
def test_wrong_names_of_fixtures(name: str) -> None:
    with pytest.raises(SpecError, match="expected the name of a fixture"):
        FromFixture(name)


def test_files_for_firmware_start_at_the_folder() -> None:
    given = {"firmware": "mine.bin", "fw_cfg": {"opt/a": Path("a"), "opt/b": "b"}}
    made = from_folder(given, Path("/f"))
    assert made == {"firmware": Path("/f/mine.bin"), "fw_cfg": {"opt/a": Path("/f/a"), "opt/b": "b"}}
    assert from_folder({"firmware": "uefi"}, Path("/f")) == {"firmware": "uefi"}
    assert list(VMSpec(**made).paths()) == [  # type: ignore[arg-type]  # as they were given
        ("firmware", Path("/f/mine.bin")),
        ("fw_cfg", Path("/f/a")),
    ]
