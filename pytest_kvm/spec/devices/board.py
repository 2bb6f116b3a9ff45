"""Memory and processors that a machine has besides those that it starts with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import checked
from pytest_kvm.spec.devices.base import BaseDevice, VirtioDevice
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.values import Check, optional, path, whole
from pytest_kvm.spec.wording import Rejected, expected_type, shown

# x86: Linux adds and removes memory in blocks of 128 MiB (Documentation/admin-guide/mm/memory-hotplug.rst).
BLOCK = 128 * 1024**2
# A namespace begins at a multiple of what a huge page is (Linux, drivers/nvdimm).
PMEM_BLOCK = 2 * 1024**2
_NODE = optional(whole("a NUMA node", 0))


def _size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type("a size such as '256M' (a number: bytes)", value)
    if read_size(value, "B") % BLOCK:
        raise Rejected(f"Linux takes memory in blocks of 128 MiB, got {shown(value)}")


def _requested(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type("a size such as '128M' (a number: bytes)", value)
    if value not in (0, "0"):
        read_size(value, "B")


def _pmem_size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type("a size such as '64M' (a number: bytes)", value)
    if read_size(value, "B") % PMEM_BLOCK:
        raise Rejected(f"it is a multiple of 2 MiB, got {shown(value)}")


@checked("Dimm", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class Dimm(BaseDevice):
    """A module of memory: ``size`` as QEMU's text (a number: bytes), in blocks of 128 MiB.

    The machine has room for it with ``memory="256M,slots=2,maxmem=1G"``. ``node`` is the NUMA node that it belongs to.
    """

    KIND = "dimm"
    OWN = ("id", "memdev", "node")
    CHECKS: ClassVar[Mapping[str, Check]] = {"size": _size, "node": _NODE}

    size: int | str
    node: int | None = None


@checked("VirtioMem", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class VirtioMem(VirtioDevice):
    """Memory that the guest has as much of as it is given: ``requested`` of ``size`` (texts as QEMU's; numbers: bytes).

    The machine has room for it with ``memory="256M,maxmem=1G"``. ``node`` is the NUMA node that it belongs to.
    """

    KIND = "mem"
    BASE = "virtio-mem"
    OWN = ("id", "memdev", "requested-size", "node")
    CHECKS: ClassVar[Mapping[str, Check]] = {"size": _size, "requested": _requested, "node": _NODE}

    size: int | str
    requested: int | str = 0
    node: int | None = None


@checked("VirtioPmem", postponable=True)
@dataclass(frozen=True, repr=False)
class VirtioPmem(VirtioDevice):
    """Persistent memory, ``/dev/pmem0`` … in the guest: a ``file`` that it writes to, or ``size`` of the host's memory.

    The machine has room for it with ``memory="256M,maxmem=1G"``. The size of a file is the file's.
    """

    KIND = "pmem"
    BASE = "virtio-pmem"
    OWN = ("id", "memdev")
    CHECKS: ClassVar[Mapping[str, Check]] = {"file": optional(path), "size": optional(_pmem_size)}

    file: str | os.PathLike[str] | None = None
    size: int | str | None = field(default=None, kw_only=True)

    def _check(self) -> None:
        super()._check()
        if self.file is None and self.size is None:
            raise SpecError("VirtioPmem(): give it a file or a size")


@checked("CPU", postponable=True)
@dataclass(frozen=True, repr=False, kw_only=True)
class CPU(BaseDevice):
    """One more processor for a running machine with room for it: ``smp="1,maxcpus=4"``, ``vm.plug(CPU())``.

    It takes the first free place, unless ``socket``, ``core`` or ``thread`` say which.
    """

    KIND = "cpu"
    OWN = ("id", "socket-id", "core-id", "thread-id")
    CHECKS: ClassVar[Mapping[str, Check]] = {
        "socket": optional(whole("a socket", 0)),
        "core": optional(whole("a core", 0)),
        "thread": optional(whole("a thread", 0)),
    }

    socket: int | None = None
    core: int | None = None
    thread: int | None = None
