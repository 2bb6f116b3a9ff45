"""A folder as a disk: a copy, made when the machine starts, that the guest reads."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import HostError
from pytest_kvm.host.rundir import LaterRunDir
from pytest_kvm.images.folder import identity, make_image
from pytest_kvm.machine.sharing.method import CannotShare, Mount
from pytest_kvm.qemu.blocks import sayable
from pytest_kvm.qemu.plan import PlannedShare

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_SOURCE = (
    "for disk in /sys/block/vd*; do node=/dev/${{disk##*/}}; "
    '[ "$(cat $disk/serial)" = {id} ] && [ -b $node ] && echo $node; done 2>/dev/null | grep .'
)


class FolderImages:
    """The session's images of folders, each made once as long as its folder stays the same; usable from any thread."""

    def __init__(self) -> None:
        self._directory = LaterRunDir()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> Path:
        """Return the image of a folder as it is now; raises HostError."""
        with self._lock:
            try:
                name = hashlib.sha256(identity(folder).encode(errors="surrogateescape")).hexdigest()[:16]
            except OSError as error:
                raise HostError(f"no image can be made of {folder}: {error.strerror} ({error.filename})") from error
            path = self._directory.path / f"{name}.ext4"
            if not path.exists():
                make_image(folder, path)
            return path

    def close(self) -> None:
        """Remove them; raises OSError when something stays."""
        with self._lock:
            self._directory.remove()


class FolderImage:
    """See Method."""

    name = "image"
    filesystem = "ext4"
    driver = "virtio_blk"

    def __init__(self, images: FolderImages) -> None:
        self._images = images

    def check(self, vm: VM, planned: PlannedShare) -> None:
        """See Method."""
        if not planned.share.readonly:
            raise CannotShare("an image is a copy that the guest reads, and the share is to be written")

    def plug(self, vm: VM, planned: PlannedShare, bus: dict[str, str]) -> Mount:
        """See Method."""
        path = self._images.of(Path(planned.share.host))
        if not sayable(path):
            raise CannotShare(f"QEMU cannot be told the name {str(path)!r}")
        node = {"node-name": planned.id, "driver": "raw", "read-only": True}
        device = {"driver": "virtio-blk-pci", "id": planned.id, "drive": planned.id, "serial": planned.id, **bus}
        vm.qmp.execute_all(
            ("blockdev-add", {**node, "file": {"driver": "file", "filename": str(path)}}), ("device_add", device)
        )
        return Mount("", _SOURCE.format(id=planned.id))
