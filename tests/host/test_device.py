"""What is said about the device node that KVM needs, and what mends it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from pytest_kvm.host import device
from pytest_kvm.host.device import BUSY, NESTED, Trouble, device_trouble, guest_fix, udev_rule

INTEL, AMD, NESTABLE, NONE = "fpu vmx sse2", "fpu svm sse2", "fpu hypervisor sse2", "fpu sse2"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that opens, on an Intel host that is no container."""
    path = tmp_path / "kvm"
    path.touch(0o660)
    monkeypatch.setattr(device, "DEVICE", str(path))
    monkeypatch.setattr(device, "CONTAINER_MARKS", (tmp_path / "container",))
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
    cpu(tmp_path, INTEL)
    return path


def cpu(folder: Path, flags: str) -> None:
    (folder / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")


def fails(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    # Root may open everything, and a kernel without the module has no node: what matters is what is answered.
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pytest_kvm.host.device.os.open", refuse)


def test_all_is_well(node: Path) -> None:
    assert device_trouble() is None


@pytest.mark.parametrize(
    ("flags", "reason", "fix"),
    [
        (INTEL, "the module is not loaded", "sudo modprobe kvm_intel"),
        (AMD, "the module is not loaded", "sudo modprobe kvm_amd"),
        (NESTABLE, "this host has no nested virtualization", NESTED),
        (NONE, "the CPU shows no VT-x or AMD-V", "switch it on in the firmware's setup, where the CPU has it"),
    ],
)
def test_there_is_none(node: Path, flags: str, reason: str, fix: str) -> None:
    node.unlink()
    cpu(node.parent, flags)
    assert device_trouble() == Trouble(f"no {node}: {reason}", fix)


def test_in_a_container(node: Path) -> None:
    node.unlink()
    (node.parent / "container").touch()
    assert device_trouble() == Trouble(f"no {node} in this container", f"start the container with --device={node}")


def test_where_nothing_is_said_of_the_cpu(node: Path) -> None:
    node.unlink()
    (node.parent / "cpuinfo").unlink()
    found = device_trouble()
    assert found is not None
    assert found.reason == f"no {node}: the CPU shows no VT-x or AMD-V"


def group(monkeypatch: pytest.MonkeyPatch, number: int, mode: int) -> None:
    monkeypatch.setattr(
        "pytest_kvm.host.device.os.stat", lambda _: os.stat_result((mode, 0, 0, 1, 0, number, 0, 0, 0, 0))
    )


@pytest.mark.parametrize(("number", "name"), [(1, "daemon"), (4_000_000_000, "4000000000")])
def test_no_permission_but_a_group(node: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    group(monkeypatch, number, 0o020660)
    fails(monkeypatch, errno.EACCES)
    found = device_trouble()
    assert found is not None
    assert found.reason == f"no permission for {node}"
    first, second = found.fix.splitlines()
    assert re.fullmatch(rf"sudo usermod -aG {name} \S+, and log in anew", first)
    assert second == f"in CI: {udev_rule(str(node))}"


@pytest.mark.parametrize(("number", "mode"), [(0, 0o020660), (1, 0o020600)])
def test_no_permission_for_anybody(node: Path, monkeypatch: pytest.MonkeyPatch, number: int, mode: int) -> None:
    group(monkeypatch, number, mode)
    fails(monkeypatch, errno.EACCES)
    assert device_trouble() == Trouble(f"no permission for {node}", udev_rule(str(node)))


@pytest.mark.parametrize(
    ("number", "reason", "fix"),
    [
        (errno.ENODEV, "{node} is there, but the module is not loaded", "sudo modprobe kvm_intel"),
        (errno.ENXIO, "{node} is there, but the module is not loaded", "sudo modprobe kvm_intel"),
        (errno.EBUSY, "another hypervisor holds it", BUSY),
        (errno.EIO, "{node}: Input/output error", ""),
    ],
)
def test_it_does_not_open(node: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str, fix: str) -> None:
    fails(monkeypatch, number)
    assert device_trouble() == Trouble(reason.format(node=node), fix)


def test_what_mends_a_probe_guest(node: Path) -> None:
    busy = "a probe guest did not run: failed to initialize kvm: Device or resource busy"
    assert guest_fix(busy) == BUSY
    assert udev_rule(str(node)) in guest_fix(
        "a probe guest did not run: Could not access KVM kernel module: Permission denied"
    )
    assert guest_fix("hangs").startswith("look at the kernel's log (dmesg)")
    cpu(node.parent, NESTABLE)
    assert guest_fix("hangs").startswith(NESTED)
