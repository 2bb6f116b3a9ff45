"""Dirty bitmaps that are kept in qcow2 images (docs/interop/bitmaps.rst in QEMU's source)."""

from __future__ import annotations

from pytest_kvm.images.verbs.call import Call, PathLike
from pytest_kvm.images.verbs.chain import settle_format
from pytest_kvm.images.verbs.names import LONGEST_BITMAP, existing_name, new_name
from pytest_kvm.images.verbs.reading import read_info
from pytest_kvm.images.verbs.results import Bitmap
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.wording import Rejected

# block/qcow2-bitmap.c: BME_MIN_GRANULARITY_BITS, BME_MAX_GRANULARITY_BITS.
_GRANULARITIES = (1 << 9, 1 << 31)


def bitmaps(
    path: PathLike, *, format: str | None = None, force_share: bool = False, qemu: str | None = None
) -> tuple[Bitmap, ...]:
    """Return the bitmaps in an image.

    ``format`` is the image's (default: found out), ``force_share`` looks into one in use.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("bitmaps", path, qemu)
    call.flags(force_share=force_share)
    return _read(call, format, force_share=force_share)


def bitmap(
    path: PathLike,
    name: str,
    *,
    granularity: int | str | None = None,
    enabled: bool = True,
    format: str | None = None,
    qemu: str | None = None,
) -> None:
    """Add a bitmap, by a name that no other one in the image has.

    ``granularity`` is how many bytes one bit stands for: a power of two from 512 to 2 GiB (default: QEMU's).
    ``enabled`` is whether it records what is written. ``format`` is the image's (default: found out).

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("bitmap", path, qemu)
    call.flags(enabled=enabled)
    arguments = ["--add"] if enabled else ["--add", "--disable"]
    with call.argument("granularity", granularity):
        if granularity is not None:
            size = read_size(granularity, "B")
            if not _GRANULARITIES[0] <= size <= _GRANULARITIES[1] or size & (size - 1):
                raise Rejected("it has to be a power of two from 512 bytes to 2 GiB")
            arguments += ["-g", str(size)]
    known = _read(call, format, written=True)
    text = new_name(call, name, "bitmap", LONGEST_BITMAP, [each.name for each in known])
    _run(call, *arguments, name=text)


def delete_bitmap(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Delete a bitmap. Raises SpecError, HostError, QemuImgError."""
    _do(Call("delete_bitmap", path, qemu), "--remove", name, format)


def clear_bitmap(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Let a bitmap say that nothing was written. Raises SpecError, HostError, QemuImgError."""
    _do(Call("clear_bitmap", path, qemu), "--clear", name, format)


def enable_bitmap(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Let a bitmap record what is written from now on. Raises SpecError, HostError, QemuImgError."""
    _do(Call("enable_bitmap", path, qemu), "--enable", name, format)


def disable_bitmap(path: PathLike, name: str, *, format: str | None = None, qemu: str | None = None) -> None:
    """Let a bitmap stay as it is, whatever is written. Raises SpecError, HostError, QemuImgError."""
    _do(Call("disable_bitmap", path, qemu), "--disable", name, format)


def merge_bitmap(
    path: PathLike,
    name: str,
    source: str,
    *,
    source_path: PathLike | None = None,
    source_format: str | None = None,
    format: str | None = None,
    qemu: str | None = None,
) -> None:
    """Add to a bitmap what another one, ``source``, has recorded.

    That one is in ``source_path`` (default: in the same image), which has ``source_format``; ``format`` is the
    image's (default: found out).

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("merge_bitmap", path, qemu)
    known = _read(call, format, written=True)
    text = existing_name(call, name, "bitmap", [each.name for each in known])
    arguments = []
    if source_path is not None:
        other = Call("merge_bitmap", source_path, qemu)
        known = _read(other, source_format)
        arguments = ["-b", str(other.path), "-F", "qcow2"]
        existing_name(other, source, "bitmap", [each.name for each in known], keyword="source")
    else:
        existing_name(call, source, "bitmap", [each.name for each in known], keyword="source")
    _run(call, "--merge", source, *arguments, name=text)


def _do(call: Call, action: str, name: str, format_: str | None) -> None:
    known = _read(call, format_, written=True)
    _run(call, action, name=existing_name(call, name, "bitmap", [each.name for each in known]))


def _run(call: Call, *arguments: str, name: str) -> None:
    # The name may begin with a dash.
    call.run("bitmap", *arguments, "-f", "qcow2", "--", str(call.path), name)


def _read(call: Call, declared: str | None, *, written: bool = False, force_share: bool = False) -> tuple[Bitmap, ...]:
    """Return the bitmaps that there are."""
    call.existing(call.path, written=written)
    format_ = settle_format(call, call.path, declared, follow=False)
    if format_ != "qcow2":
        raise call.rejected(f"a {format_} image has no bitmaps; qcow2 has")
    return read_info(call, call.path, format_, force_share=written or force_share).bitmaps
