"""The guest's RAM in files that nobody but QEMU has a name for."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_kvm.files import copy_sparse
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import Ram

# memory-backend-file's rom=off came with this version; with readonly=on it maps a file privately that it cannot write.
_PROTECTING = (8, 2)


class RamFiles:
    """RAM in a file for each backend: written by one machine that shares it, then mapped by any number of others.

    Before 8.2, QEMU opens a file for writing even when it maps it privately, and a balloon that is inflated punches
    holes into it (ram_block_discard_range in softmmu/physmem.c): into the memory of all machines that map it. So there
    a file is one without a name, sealed against writing; a newer QEMU opens it for reading only.
    """

    def __init__(self, descriptors: Iterable[int], *, sealed: bool) -> None:
        self.descriptors = tuple(descriptors)
        self._sealed = sealed

    @classmethod
    def empty(cls, sizes: Iterable[int]) -> RamFiles:
        """Return new ones of so many bytes, to be shared by a machine that fills them."""
        with contextlib.ExitStack() as stack:
            descriptors = []
            for size in sizes:
                descriptor = os.memfd_create("pytest-kvm-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                stack.callback(os.close, descriptor)
                os.ftruncate(descriptor, size)
                descriptors.append(descriptor)
            stack.pop_all()
        return cls(descriptors, sealed=False)

    @classmethod
    def opened(cls, paths: Sequence[Path], binary: QEMUBinary) -> RamFiles:
        """Return the RAM that was saved in files; raises OSError."""
        with contextlib.ExitStack() as stack:
            sources = []
            for path in paths:
                sources.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, sources[-1])
            if binary.version >= _PROTECTING:
                stack.pop_all()
                return cls(sources, sealed=False)
            copies = cls.empty(os.fstat(source).st_size for source in sources)
            try:
                for source, copy in zip(sources, copies.descriptors, strict=True):
                    copy_sparse(source, copy)
                copies.seal()
            except BaseException:
                copies.close()
                raise
            return copies

    def duplicate(self) -> RamFiles:
        """Return them under descriptors of their own."""
        with contextlib.ExitStack() as stack:
            descriptors = []
            for descriptor in self.descriptors:
                descriptors.append(os.dup(descriptor))
                stack.callback(os.close, descriptors[-1])
            stack.pop_all()
        return RamFiles(descriptors, sealed=self._sealed)

    def seal(self) -> None:
        """Let nobody write to them any more; the machine that did must have ended."""
        for descriptor in self.descriptors:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._sealed = True

    def shared(self) -> Ram:
        """Return the backends of the machine that fills them."""
        return Ram(self.descriptors, shared=True)

    def private(self) -> Ram:
        """Return the backends of a machine that begins with what is in them, and keeps its changes to itself."""
        return Ram(self.descriptors, protected=not self._sealed)

    def close(self) -> None:
        """Close our descriptors; machines that map the files go on."""
        for descriptor in self.descriptors:
            os.close(descriptor)
