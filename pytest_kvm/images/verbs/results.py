"""What qemu-img says about images, as typed values (qapi/block-core.json in QEMU's source)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class DiskSnapshot:
    """A snapshot inside an image: ``vm_state_size`` in bytes (0: of the disk only), ``vm_clock`` in seconds."""

    id: str
    name: str
    vm_state_size: int
    date: datetime
    vm_clock: float


@dataclass(frozen=True)
class Bitmap:
    """A dirty bitmap that is kept in an image.

    ``granularity`` is in bytes; ``enabled`` is whether it records what is written, ``in_use`` whether it was not
    written back in order, after which it is good for nothing but to be deleted.
    """

    name: str
    granularity: int
    enabled: bool
    in_use: bool


@dataclass(frozen=True)
class ImageInfo:
    """What an image is.

    Sizes are in bytes: ``virtual_size`` is the guest's disk, ``disk_size`` what the file takes on the host, and
    ``cluster_size`` is None for formats without. ``backing_name`` is the backing file's name as it is written in the
    image, ``backing_file`` where that is (None: it is no overlay), ``backing_format`` its format as the image says.
    ``dirty`` is whether it was not closed in order, ``corrupt`` whether QEMU has marked it so. ``specific`` is what
    only this format has, by QEMU's names. ``chain`` are the images that it is an overlay on, the next one first;
    empty unless it was asked for.
    """

    path: Path
    format: str
    virtual_size: int
    disk_size: int
    cluster_size: int | None = None
    backing_file: Path | None = None
    backing_name: str | None = None
    backing_format: str | None = None
    snapshots: tuple[DiskSnapshot, ...] = ()
    bitmaps: tuple[Bitmap, ...] = ()
    dirty: bool = False
    corrupt: bool = False
    encrypted: bool = False
    specific: Mapping[str, object] = field(default_factory=dict)
    chain: tuple[ImageInfo, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """What a check found, and what is left of it when it was to be repaired.

    ``errors`` are checks that could not be made, ``corruptions`` harm data, ``leaks`` are clusters that only waste
    space; ``repaired`` is how many of the latter two are no more. ``problems`` is what qemu-img said, a line each.
    ``end_offset`` is where the image ends in its file, in bytes. What a format does not count is None.
    """

    errors: int = 0
    corruptions: int = 0
    leaks: int = 0
    repaired: int = 0
    total_clusters: int | None = None
    allocated_clusters: int | None = None
    fragmented_clusters: int | None = None
    compressed_clusters: int | None = None
    end_offset: int | None = None
    problems: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, now."""
        return not (self.errors or self.corruptions or self.leaks)


@dataclass(frozen=True)
class Comparison:
    """Whether guests read the same from two images; true when they do.

    ``reason`` is what qemu-img said, ``offset`` the first byte that differs, None when it does not say so.
    """

    identical: bool
    reason: str
    offset: int | None = None

    def __bool__(self) -> bool:
        return self.identical


@dataclass(frozen=True)
class Extent:
    """A stretch of a disk, in bytes: from ``start``, ``length`` long.

    ``depth`` is which image of the chain it comes from (0: this one), ``present`` whether that has it at all,
    ``data`` whether it is stored, ``zero`` whether it reads as zeros, ``offset`` where it is in that file (None:
    nowhere as it is, for example because it is compressed).
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None = None


@dataclass(frozen=True)
class Measure:
    """How much room an image would take, in bytes.

    ``required`` is for what is there now, ``fully_allocated`` when all is written, ``bitmaps`` what the source's
    would take in addition (0: none).
    """

    required: int
    fully_allocated: int
    bitmaps: int = 0
