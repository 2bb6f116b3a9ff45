"""The kernel inside a bzImage: found, unpacked, and what QEMU starts emulated guests with."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pytest_kvm import VM, VMFactory, VMSpec
from pytest_kvm.images.builtin.tiny import DIRECT, direct_kernel, tiny_image
from pytest_kvm.images.builtin.vmlinux import unpacked
from pytest_kvm.machine.firmware import find_firmware
from pytest_kvm.machine.planning import make_plan
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.spec.fields import VMFields
from tests.images.builtin.fakes import elf

ENTRY = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
OTHER = struct.pack("<III", 6, 5, 1) + b"Linux\0\0\0" + b"other\0\0\0"
KERNEL = elf({".text": b"code" * 1000, ".notes": OTHER + ENTRY})
PACKED = zstandard.compress(KERNEL)


def bzimage(payload: bytes, *, version: int = 0x20F, sectors: int = 39, before: bytes = b"unpacks it") -> bytes:
    """Return a file with a payload; behind that is what it has once it is unpacked, and more code."""
    whole = payload + struct.pack("<I", len(KERNEL))
    image = bytearray(((sectors or 4) + 1) * 512)
    image[0x1F1], image[0x202:0x206] = sectors, b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, len(before), len(whole))
    return bytes(image) + before + whole + b"more code"


@pytest.mark.parametrize("pack", [zstandard.compress, lzma.compress, gzip.compress])
@pytest.mark.parametrize("sectors", [0, 39])
def test_what_is_in_it(pack: Callable[[bytes], bytes], sectors: int) -> None:
    assert unpacked(bzimage(pack(KERNEL), sectors=sectors)) == KERNEL


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"a kernel",
        KERNEL,
        bzimage(PACKED, version=0x207),
        bzimage(b"packed otherwise"),
        bzimage(PACKED[:-30]),
        bzimage(PACKED)[:-30],
        *(bzimage(PACKED)[:length] for length in (0x206, 0x207, 0x250, 600)),
        bzimage(zstandard.compress(b"no kernel")),
        bzimage(zstandard.compress(elf({".notes": OTHER}))),
        bzimage(zstandard.compress(elf({".notes": OTHER + ENTRY[:7]}))),
        bzimage(zstandard.compress(elf({".text": b"code"}))),
    ],
)
def test_what_cannot_be_started(image: bytes) -> None:
    assert unpacked(image) is None


def test_of_built_in_guests_only(tmp_path: Path) -> None:
    (tmp_path / DIRECT).touch()
    assert direct_kernel(tmp_path / "vmlinuz") == tmp_path / "vmlinuz"


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
def test_emulated_guests_start_with_it(vm_factory: VMFactory, machine: str) -> None:
    vm = vm_factory(machine=machine, accel="tcg", start="boot")
    kernel = Path(str(tiny_image().kernel))
    assert started_with(vm) == kernel.with_name(DIRECT)
    assert vm.kernel.release in kernel.with_name("info.json").read_text()


@pytest.mark.parametrize("fields", [{"firmware": "uefi"}, {"tpm": True}, {"args": ["-acpitable", "data=/dev/null"]}])
def test_some_machines_unpack_it(fields: VMFields) -> None:
    """UEFI starts nothing else; with a TPM, QEMU would put the initramfs where the tables of ACPI are."""
    assert planned(VMSpec(**fields), "tcg") == "vmlinuz"


@pytest.mark.parametrize(("accel", "kernel"), [("tcg", DIRECT), ("kvm", "vmlinuz"), ("hvf", "vmlinuz")])
def test_where_unpacking_is_quick(accel: str, kernel: str) -> None:
    assert planned(VMSpec(), accel) == kernel


def planned(spec: VMSpec, accel: str) -> str:
    """Return the name of the kernel that a machine of the built-in guest would be started with."""
    plan = make_plan(spec, tiny_image(), accel, firmware=find_firmware(spec, find_qemu()))
    assert plan.kernel is not None
    return plan.kernel.name


def started_with(vm: VM) -> Path:
    return Path(vm.command[vm.command.index("-kernel") + 1])
