"""A machine that somebody starts by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.qemu.byhand import by_hand, differences
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import SEED_DISK, Channel, DriveFile, PlannedFirmware, Ram, plan_drives
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary
from tests.qemu.plans import plan, words

HEAD = (
    "/usr/bin/qemu -name guest=vm -nodefaults -no-user-config "
    "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
)


def test_a_clone_with_everything() -> None:
    spec = VMSpec(nics=[])
    planned = plan(
        spec,
        ports=[("org.example.ctl", Channel("shell-ctl", 12))],
        agent=Channel("agent", 13),
        kernel=Path("/k"),
        append="console=ttyS0",
        ram=Ram([14]),
        incoming=True,
        inherited=[15],
    )
    assert build(by_hand(planned, {}), binary()) == words(
        HEAD,
        "-machine q35,memory-backend=ram -accel tcg -display none -smp 1 -m 256M",
        "-object memory-backend-ram,id=ram,size=268435456 -action panic=pause",
        "-serial mon:stdio -kernel /k -append console=ttyS0",
        "-device virtio-serial-pci,id=shell0,max_ports=31 -chardev ringbuf,id=shell-ctl",
        "-device virtserialport,id=port-shell-ctl,bus=shell0.0,chardev=shell-ctl,name=org.example.ctl",
        "-device virtio-serial-pci,id=agent0 -chardev ringbuf,id=agent",
        "-device virtserialport,id=port-agent,bus=agent0.0,chardev=agent,name=org.qemu.guest_agent.0",
    )
    assert list(differences(planned, {})) == [
        "Console and QEMU's monitor are in the terminal (Ctrl-A C switches, Ctrl-A X ends it); there is no QMP.",
        "It boots, with memory of its own; the test's machine went on where another one had been saved.",
        "Nobody answers at the other end of the virtio-serial ports.",
    ]


def test_a_machine_with_nothing_in_it() -> None:
    planned = plan(VMSpec(image=None, machine="none", args=["-S"]))
    command = build(by_hand(planned, {}), binary())
    assert command == words(HEAD, "-machine none -accel tcg -display none -monitor stdio -S")
    assert list(differences(planned, {})) == ["QEMU's monitor is in the terminal; there is no QMP."]


def test_firmware_whose_variables_are_its_own() -> None:
    firmware = PlannedFirmware(code=Path("/c"), template=Path("/a,b"), variables=Path("/m/vars"))
    planned = plan(VMSpec(image=None), firmware=firmware)
    command = build(by_hand(planned, {}), binary())
    assert command[command.index("-drive") + 1] == (
        "if=pflash,file.driver=file,unit=1,format=raw,file.filename=/a,,b,snapshot=on"
    )
    assert "q35,pflash0=pflash0" in command
    assert (
        "UEFI variables begin as the firmware's packages have them; what is written to them is thrown away."
        in differences(planned, {})
    )


def test_one_with_a_tpm() -> None:
    planned = plan(VMSpec(image=None, tpm=True, fw_cfg={"opt/a": b"a"}), tpm=Channel("swtpm", 15), inherited=[15])
    assert "-tpmdev" not in build(by_hand(planned, {}), binary())
    assert "opt/a of fw_cfg, which is bytes, is left out." in differences(planned, {})
    assert "The TPM is left out: the test's was a swtpm that ended with the machine." in differences(planned, {})


def test_one_that_waits_for_gdb() -> None:
    planned = plan(VMSpec(image=None, machine="none"), gdb=Channel("gdb", 14, connected=False), halted=True)
    command = build(by_hand(planned, {}), binary())
    assert command == words(HEAD, "-machine none -accel tcg -display none -monitor stdio")
    assert "Nobody listens for gdb: with -s, QEMU does, on port 1234." in differences(planned, {})


@pytest.mark.parametrize(
    ("drive", "original", "text"),
    [
        (
            Drive("x.qcow2", cache="none"),
            DriveFile(Path("/d/a,b:c.qcow2"), "qcow2"),
            "if=none,id=disk0,format=qcow2,cache=none,file.driver=file,file.filename=/d/a,,b:c.qcow2,snapshot=on",
        ),
        (
            Drive("x.raw", readonly=True),
            DriveFile(Path("/d/x.raw"), "raw", read_only=True),
            "if=none,id=disk0,format=raw,file.driver=file,file.filename=/d/x.raw,readonly=on",
        ),
        (
            Drive(size="1M", format="qcow2"),
            DriveFile(Path(), "raw", size=1 << 20),
            "if=none,id=disk0,format=raw,file.driver=null-co,file.size=1048576,file.read-zeroes=on,snapshot=on",
        ),
    ],
)
def test_disks_are_what_the_test_gave(drive: Drive, original: DriveFile, text: str) -> None:
    spec = VMSpec(image=None, drives=[drive])
    planned = plan(spec, drives=[(each, DriveFile(Path("/run/gone.qcow2"), "qcow2")) for each in plan_drives(spec)])
    command = build(by_hand(planned, {"disk0": original}), binary())
    assert command[command.index("-drive") + 1] == text
    assert command[-2:] == ["-device", "virtio-blk-pci,id=disk0,drive=disk0" + (",write-cache=on" * bool(drive.cache))]
    assert "gone" not in " ".join(command)
    assert list(differences(planned, {"disk0": original}))[1:] == [
        "Disks begin as they did in the test, or empty; what is written to them is thrown away."
    ]


def test_a_disk_that_is_gone_is_left_out() -> None:
    spec = VMSpec(image=None, drives=[Drive("/d/gone.raw"), Drive("/d/seed.iso", id=SEED_DISK)])
    planned = plan(spec, drives=[(each, DriveFile(Path("/run/x"), "raw")) for each in plan_drives(spec)])
    assert "disk" not in " ".join(build(by_hand(planned, {}), binary()))
    assert list(differences(planned, {}))[1:] == [
        "Drive 'disk0' is left out: its file, /d/gone.raw, cannot be read.",
        "Drive 'disk-seed' is left out: the seed has secrets in it, and was removed with the session.",
    ]


def test_what_is_the_same_stays_the_same() -> None:
    spec = VMSpec(smp=2, hostfwd=[22], args=["-rtc", "base=utc"], devices=["edu"])
    planned = replace(plan(spec), ram=None)
    usual = build(planned, binary())
    ours = {"-chardev", "-mon", "-serial"}
    kept = [word for before, word in zip(["", *usual], usual, strict=False) if not {before, word} & ours]
    command = build(by_hand(planned, {}), binary())
    assert [word for word in command if word not in ("-serial", "mon:stdio")] == kept
