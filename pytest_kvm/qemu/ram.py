"""The guest's RAM in a file that nobody but QEMU has a name for."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pytest_kvm.files import copy_sparse
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import Ram

# memory-backend-file's rom=off came with this version; with readonly=on it maps a file privately that it cannot write.
_PROTECTING = (8, 2)


class RamFile:
    """RAM in a file: written by one machine that shares it, then mapped by any number of others, each for itself.

    Before 8.2, QEMU opens the file for writing even when it maps it privately, and a balloon that is inflated punches
    holes into it (ram_block_discard_range in softmmu/physmem.c): into the memory of all machines that map it. So there
    the file is one without a name, sealed against writing; a newer QEMU opens it for reading only.
    """

    def __init__(self, descriptor: int, *, sealed: bool) -> None:
        self._descriptor = descriptor
        self._sealed = sealed

    @classmethod
    def empty(cls, size: int) -> RamFile:
        """Return a new one of ``size`` bytes, to be shared by a machine that fills it."""
        descriptor = os.memfd_create("pytest-kvm-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        return cls(descriptor, sealed=False)

    @classmethod
    def opened(cls, path: Path, binary: QEMUBinary) -> RamFile:
        """Return the RAM that was saved in a file; raises OSError."""
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if binary.version >= _PROTECTING:
            return cls(source, sealed=False)
        try:
            copy = cls.empty(os.fstat(source).st_size)
            try:
                copy_sparse(source, copy.fileno())
                copy.seal()
            except BaseException:
                copy.close()
                raise
            return copy
        finally:
            os.close(source)

    def duplicate(self) -> RamFile:
        """Return it under a descriptor of its own."""
        return RamFile(os.dup(self._descriptor), sealed=self._sealed)

    def seal(self) -> None:
        """Let nobody write to it any more; the machine that did must have ended."""
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._sealed = True

    def shared(self) -> Ram:
        """Return the backend of the machine that fills it."""
        return Ram(self._descriptor, shared=True)

    def private(self) -> Ram:
        """Return the backend of a machine that begins with what is in it, and keeps its changes to itself."""
        return Ram(self._descriptor, protected=not self._sealed)

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._descriptor

    def close(self) -> None:
        """Close our descriptor; machines that map it go on."""
        os.close(self._descriptor)
