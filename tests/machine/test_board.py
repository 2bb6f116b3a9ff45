"""Watchdog, generation ID, vsock, fw_cfg and SMBIOS: what the guest sees of them."""

from __future__ import annotations

import socket
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm import VM, FromFixture, GuestPanic, HostError, SpecError, VMFactory
from pytest_kvm.host.device import Trouble, node_trouble
from pytest_kvm.machine import board
from pytest_kvm.machine.board import check_board, with_contents
from pytest_kvm.qemu.board import VSOCK
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import DEVICES, binary
from tests.qemu.plans import plan

# Nobody feeds it any more: a second to feed it again in, ten minutes until it would be.
STARVE = "modprobe i6300esb; watchdog -T 1 -t 600 /dev/watchdog"
FW_CFG = "/sys/firmware/qemu_fw_cfg/by_name"
SMBIOS = {
    1: {"manufacturer": "Example, Inc.", "serial": "S1", "uuid": "f00dfeed-1111-2222-3333-444455556666"},
    3: {"asset": "rack 7"},
    11: {"value": ["one", "two"]},
}


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note"
    path.write_text("from a file")
    return path


# The watchdog


@pytest.mark.vm(watchdog="pause")
def test_a_watchdog_that_pauses(vm: VM) -> None:
    with vm.expect_watchdog("pause"):
        vm.run(STARVE)
    assert vm.qmp.execute("query-status")["status"] == "watchdog"


@pytest.mark.vm(watchdog="pause")
def test_a_watchdog_that_fires_unasked(vm: VM) -> None:
    with pytest.raises(GuestPanic) as caught:
        vm.run(f"{STARVE}; while :; do sleep 1; done")
    assert caught.value.kind == "watchdog"
    assert caught.value.title == "watchdog: action pause"
    vm.watcher.findings.all[-1].expected = True


@pytest.mark.vm(watchdog="iTCO,pause")
def test_the_watchdog_of_the_chip_set(vm: VM) -> None:
    with vm.expect_watchdog("pause"):
        # 3 s is the shortest that it takes.
        vm.run("modprobe lpc_ich; modprobe iTCO_wdt; watchdog -T 3 -t 600 /dev/watchdog", timeout=30)


# The generation ID


def test_each_clone_is_another_generation(vm_factory: VMFactory) -> None:
    first, second = (vm_factory(name, start="clone") for name in ("first", "second"))
    assert uuid.UUID(first.generation_id) != uuid.UUID(second.generation_id)
    before = first.generation_id
    first.restore(first.snapshot())
    assert first.generation_id != before


@pytest.mark.vm(start="clone")
@pytest.mark.vm_requires(config="CONFIG_VMGENID=y")
def test_the_kernel_knows_that_it_was_cloned(vm: VM) -> None:
    def forks() -> int:
        return sum("crng reseeded due to virtual machine fork" in message.text for message in vm.dmesg())

    # Its own as a clone, and the one that it goes back to.
    assert forks() == 1
    vm.restore(vm.snapshot())
    assert forks() == 2


# vsock


def test_where_there_is_no_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = binary(devices=DEVICES | {VSOCK})
    monkeypatch.setattr(board, "node_trouble", lambda path, module: Trouble(f"no {path}", f"sudo modprobe {module}"))
    with pytest.raises(HostError) as caught:
        check_board(VMSpec(vsock=True), qemu)
    assert str(caught.value) == "vm(vsock=True): no /dev/vhost-vsock\n  sudo modprobe vhost_vsock"
    with pytest.raises(HostError, match="was built without vhost-vsock-pci"):
        check_board(VMSpec(vsock=True), binary())
    monkeypatch.setattr(board, "node_trouble", lambda path, module: None)
    check_board(VMSpec(vsock=True), qemu)


@pytest.mark.skipif(node_trouble("/dev/vhost-vsock", "vhost_vsock") is not None, reason="the host has no vsock")
@pytest.mark.vm(vsock=True)
def test_vsock(vm: VM) -> None:
    vm.modprobe("vmw_vsock_virtio_transport")
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as client, pytest.raises(ConnectionResetError):
        client.connect((vm.cid, 9999))  # the guest is there, and refuses
    assert vm.started is not None
    assert vm.started.reason.startswith("vsock=True: the state of vsock is in the host's kernel")


def test_no_cid_without_vsock(vm: VM) -> None:
    with pytest.raises(SpecError, match="VM 'vm' has no vsock; declare it with vsock=True"):
        _ = vm.cid


# fw_cfg and SMBIOS


@pytest.mark.vm(
    fw_cfg={
        "opt/org.example/text": "a,b\n",
        "opt/org.example/bytes": b"\0\xff",
        "opt/org.example/file": FromFixture("note"),
    },
    smbios=SMBIOS,
    start="clone",
)
def test_what_the_guest_is_told(vm: VM, note: Path) -> None:
    vm.run("modprobe qemu_fw_cfg")
    assert vm.run(f"cat {FW_CFG}/opt/org.example/text/raw").stdout == "a,b\n"
    assert vm.run(f"cat {FW_CFG}/opt/org.example/bytes/raw", text=False).stdout == b"\0\xff"
    assert vm.run(f"cat {FW_CFG}/opt/org.example/file/raw").stdout == note.read_text()
    names = ("sys_vendor", "product_serial", "product_uuid", "chassis_asset_tag")
    told = vm.run("cd /sys/class/dmi/id; cat " + " ".join(names)).stdout.splitlines()
    assert told == ["Example, Inc.", "S1", "f00dfeed-1111-2222-3333-444455556666", "rack 7"]
    strings = vm.run("cat /sys/firmware/dmi/entries/11-0/raw", text=False, check=False)
    assert strings.returncode != 0 or b"one\0two\0" in strings.stdout


def test_bytes_are_in_a_file(tmp_path: Path) -> None:
    planned = plan(VMSpec(fw_cfg={"opt/text": "text", "opt/bytes": b"\0"}))
    made = with_contents(planned, tmp_path)
    assert made.spec.fw_cfg == {"opt/text": "text", "opt/bytes": tmp_path / "fw_cfg.1"}
    assert (tmp_path / "fw_cfg.1").read_bytes() == b"\0"
    without = replace(planned, spec=VMSpec())
    assert with_contents(without, tmp_path) is without


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"smbios": {1: {}}}, "smbios={1: {}}): this machine does not have SMBIOS tables; use q35 or pc"),
        ({"watchdog": "pause"}, "watchdog='pause'): this machine does not have a PCI bus for it; use q35 or pc"),
        ({"vsock": True}, "vsock=True): this machine does not have a PCI bus for it; use q35 or pc"),
    ],
)
def test_machines_that_have_no_place_for_it(fields: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_board(VMSpec(machine="microvm", **fields), binary())  # type: ignore[arg-type]  # a test's own words
    assert str(caught.value) == f"vm(machine='microvm', {text}"


def test_the_chip_set_of_a_pc_has_no_watchdog() -> None:
    with pytest.raises(SpecError) as caught:
        check_board(VMSpec(machine="pc", watchdog="iTCO,reset"), binary())
    assert str(caught.value) == "vm(machine='pc', watchdog='iTCO,reset'): a q35's chip set has iTCO; use i6300esb"
