"""Machines that begin with UEFI: clones, variables, secure boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, FromFixture, GuestPanic, VMFactory
from pytest_kvm.machine.firmware import VARIABLES
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.waiting import Deadline

EFIVARS = "/sys/firmware/efi/efivars"
VENDOR = "f00dfeed-1111-2222-3333-444455556666"


def mounted(vm: VM) -> None:
    if not vm.kernel.has_module("efivarfs"):
        pytest.skip(f"kernel {vm.kernel.release} has no efivarfs")
    vm.modprobe("efivarfs")
    vm.run(f"grep -q efivarfs /proc/mounts || mount -t efivarfs none {EFIVARS}")


def write(vm: VM, name: str) -> None:
    """Write a variable that lasts, and can be read while the system runs."""
    mounted(vm)
    vm.run(rf"printf '\7\0\0\0it' >{EFIVARS}/{name}-{VENDOR}")


def variables(vm: VM) -> list[str]:
    """Return the variables that the guest sees and a test has written."""
    mounted(vm)
    return vm.run(f"ls {EFIVARS} | sed -n 's/-{VENDOR}//p'").stdout.split()


def kept(vm: VM, *names: str) -> list[str]:
    """Return which of the names are in the machine's file of variables."""
    content = (vm._folder / VARIABLES).read_bytes()
    return [name for name in names if name.encode("utf-16-le") in content]


def test_clones_have_variables_of_their_own(vm_factory: VMFactory) -> None:
    first = vm_factory("first", firmware="uefi", start="clone")
    second = vm_factory("second", firmware="uefi", start="clone")
    assert first.spec.memory == "512M"
    write(first, "mine")
    write(second, "other")
    assert (variables(first), variables(second)) == (["mine"], ["other"])
    assert kept(first, "mine", "other") == ["mine"]
    assert kept(second, "mine", "other") == ["other"]


@pytest.mark.vm(firmware="uefi", start="clone")
def test_variables_last_until_the_machine_ends(vm: VM) -> None:
    write(vm, "one")
    vm.power_cut()
    vm.start()
    assert variables(vm) == ["one"]


@pytest.mark.vm(firmware="uefi", start="clone")
def test_snapshots_have_variables(vm: VM, vm_factory: VMFactory) -> None:
    write(vm, "one")
    state = vm.snapshot()
    write(vm, "two")
    assert kept(vm, "one", "two") == ["one", "two"]
    copy = vm_factory(snapshot=state)
    assert kept(copy, "one", "two") == ["one"]
    vm.restore(state)
    assert (variables(vm), kept(vm, "one", "two")) == (["one"], ["one"])
    write(vm, "three")
    assert kept(copy, "three") == []


@pytest.mark.slow
@pytest.mark.vm(firmware="uefi", start="clone")
def test_variables_of_a_snapshot_last(vm: VM) -> None:
    write(vm, "one")
    state = vm.snapshot()
    write(vm, "two")
    vm.reboot()
    assert variables(vm) == ["one", "two"]
    vm.restore(state)
    vm.reset()
    assert variables(vm) == ["one"]
    write(vm, "three")
    vm.power_cut()
    vm.start()
    assert variables(vm) == ["one", "three"]


@pytest.mark.slow
@pytest.mark.vm(firmware="uefi", machine="pc", start="clone")
def test_pc(vm: VM) -> None:
    assert vm.run("cat /sys/firmware/efi/fw_platform_size").stdout == "64\n"


@pytest.mark.slow
@pytest.mark.vm(firmware="uefi-secure", start="clone")
def test_secure_boot(vm: VM) -> None:
    mounted(vm)
    assert vm.run(f"tail -c 1 {EFIVARS}/SecureBoot-* | od -An -tx1").stdout.split() == ["01"]
    write(vm, "mine")
    assert kept(vm, "mine") == ["mine"]
    # The kernel has been told; what -kernel gives it is not checked by the firmware.
    assert any("Secure boot enabled" in record.text for record in vm.dmesg())


@pytest.mark.vm(image=None, firmware="uefi", ready="login", autostart=False)
def test_nothing_to_boot(vm: VM) -> None:
    with pytest.raises(GuestPanic, match="firmware found nothing to boot") as caught:
        vm.start()
    assert caught.value.kind == "firmware"


@pytest.fixture
def seabios(tmp_path: Path) -> Path:
    """SeaBIOS in a file of the user's."""
    found = next(path for folder in find_qemu().data if (path := folder / "bios-256k.bin").exists())
    copy = tmp_path / "mine.bin"
    copy.write_bytes(found.read_bytes())
    return copy


@pytest.mark.vm(image=None, firmware=FromFixture("seabios"))
def test_a_file(vm: VM, seabios: Path) -> None:
    assert vm.command[vm.command.index("-bios") + 1] == str(seabios)
    firmware = vm._firmware
    assert firmware is not None
    assert vm.watch.wait_for(lambda: "SeaBIOS (version" in firmware.shown(), Deadline(60))
