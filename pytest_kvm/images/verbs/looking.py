"""Look into images, without changing them: only a check may repair."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pytest_kvm.images.verbs.call import Call, PathLike, Progress
from pytest_kvm.images.verbs.chain import settle_format
from pytest_kvm.images.verbs.names import snapshot_arguments
from pytest_kvm.images.verbs.options import disk_size, option_arguments
from pytest_kvm.images.verbs.reading import read_check, read_info
from pytest_kvm.images.verbs.results import CheckResult, Comparison, Extent, ImageInfo, Measure
from pytest_kvm.spec.values import one_of, optional, whole
from pytest_kvm.spec.wording import Rejected

# qemu-img(1): of check, 2 is corruption, 3 are leaks only, 63 that the format cannot be checked; of compare, 1 is that
# they differ.
_CHECKED = (0, 2, 3)
_UNCHECKABLE = 63
_COMPARED = (0, 1)
_OFFSET = re.compile(r"at offset (\d+)")
_MEASURABLE = ("raw", "qcow2")


def info(
    path: PathLike,
    *,
    format: str | None = None,
    chain: bool = False,
    force_share: bool = False,
    qemu: str | None = None,
) -> ImageInfo:
    """Return what an image is: its format, sizes, backing file, snapshots and bitmaps.

    ``format`` is the image's (default: found out). With ``chain`` the images that it is an overlay on are looked
    into, too; without, none of them need be there. ``force_share`` looks into an image in use.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("info", path, qemu)
    call.flags(chain=chain, force_share=force_share)
    call.existing(call.path)
    format_ = settle_format(call, call.path, format, follow=chain)
    return read_info(call, call.path, format_, force_share=force_share, chain=chain)


def check(
    path: PathLike,
    *,
    repair: str | None = None,
    format: str | None = None,
    force_share: bool = False,
    qemu: str | None = None,
) -> CheckResult:
    """Check an image's own structure, and repair it where that is said; damage is no error, but the result.

    ``repair`` is ``"leaks"``, which frees what only wastes space, or ``"all"``, which may choose wrongly, and hide
    damage that has been done; by default nothing is changed. ``format`` is the image's (default: found out).
    ``force_share`` checks an image in use, which may then seem damaged.

    Raises SpecError, also for a format that has nothing to be checked, such as raw; HostError, QemuImgError.
    """
    call = Call("check", path, qemu)
    with call.argument("repair", repair):
        optional(one_of("leaks", "all"))(repair)
    call.flags(force_share=force_share)
    with call.argument("repair", repair):
        if repair is not None and force_share:
            raise Rejected("an image in use cannot be repaired; leave out force_share=")
    call.existing(call.path, written=repair is not None)
    format_ = settle_format(call, call.path, format)
    if format_ == "raw":
        raise call.rejected("a raw image has no structure of its own that could be checked; qcow2 has one")
    arguments = [*(["-r", repair] if repair is not None else []), *(["-U"] if force_share else [])]
    done = call.run(
        *("check", "--output=json", "-f", format_, *arguments, str(call.path)),
        good=(*_CHECKED, _UNCHECKABLE),
        shareable=repair is None,
    )
    if done.returncode == _UNCHECKABLE:
        raise call.rejected(f"qemu-img cannot check {format_} images")
    return read_check(done.stdout, done.stderr)


def compare(
    path: PathLike,
    other: PathLike,
    *,
    format: str | None = None,
    other_format: str | None = None,
    strict: bool = False,
    force_share: bool = False,
    progress: Progress = False,
    qemu: str | None = None,
) -> Comparison:
    """Compare what guests read from two images; the result is true when it is the same.

    ``format`` and ``other_format`` are the images' (default: found out). A longer one may have zeros at its end,
    unless ``strict`` is said; then both have to have the same size, and the same holes. ``force_share`` reads images
    in use, ``progress`` is told how far it is.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("compare", path, qemu)
    second = call.place("other", other)
    call.flags(strict=strict, force_share=force_share)
    arguments = call.reporting(progress)
    call.existing(call.path)
    call.existing(second, "the other image")
    formats = ["-f", settle_format(call, call.path, format)]
    formats += ["-F", settle_format(call, second, other_format, keyword="other_format")]
    arguments += [flag for flag, wanted in (("-s", strict), ("-U", force_share)) if wanted]
    done = call.run(
        *("compare", *formats, *arguments, str(call.path), str(second)),
        progress=progress,
        good=_COMPARED,
        shareable=True,
    )
    reason = "; ".join(line.rstrip(".!") for line in done.stdout.splitlines() if line)
    offset = _OFFSET.search(reason)
    return Comparison(done.returncode == 0, reason, int(offset[1]) if offset is not None else None)


def map(
    path: PathLike,
    *,
    format: str | None = None,
    start: int = 0,
    length: int | None = None,
    force_share: bool = False,
    qemu: str | None = None,
) -> list[Extent]:
    """Return which parts of a disk are stored where, and in which image of the chain, in order.

    ``format`` is the image's (default: found out). ``start`` and ``length`` choose a part of the disk, in bytes
    (default: all of it). ``force_share`` looks into an image in use.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("map", path, qemu)
    call.flags(force_share=force_share)
    for keyword, value in (("start", start), ("length", length)):
        with call.argument(keyword, value):
            optional(whole("a number of bytes", 0))(value)
    call.existing(call.path)
    format_ = settle_format(call, call.path, format)
    arguments = [f"--start-offset={start}"]
    arguments += [f"--max-length={length}"] if length is not None else []
    arguments += ["-U"] if force_share else []
    done = call.run("map", "--output=json", "-f", format_, *arguments, str(call.path), shareable=True)
    return [
        Extent(
            each["start"],
            each["length"],
            each["depth"],
            each["present"],
            each["zero"],
            each["data"],
            each.get("offset"),
        )
        for each in json.loads(done.stdout)
    ]


def measure(
    path: PathLike | None = None,
    *,
    size: int | str | None = None,
    format: str = "qcow2",
    source_format: str | None = None,
    snapshot: str | None = None,
    options: Mapping[str, object] | None = None,
    qemu: str | None = None,
) -> Measure:
    """Return how much room an image would take: one with the content of ``path``, or an empty one of ``size``.

    ``format``, raw or qcow2, and ``options`` are those that it would have (as for ``create``), ``source_format`` is
    that of ``path``, ``snapshot`` names one in it.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("measure", path, qemu, needed=False)
    with call.argument("format", format):
        one_of(*_MEASURABLE)(format)
    with call.argument("size", size):
        if (path is None) == (size is None):
            raise Rejected(f"give an image or a size, not {'neither' if path is None else 'both'}")
        if size is not None and (source_format, snapshot) != (None, None):
            raise Rejected("source_format= and snapshot= are of an image, and there is none")
    if size is not None:
        source = [f"--size={disk_size(call, 'size', size)}"]
    else:
        call.existing(call.path)
        kind = settle_format(call, call.path, source_format, keyword="source_format")
        source = ["-f", kind, *snapshot_arguments(call, kind, snapshot), str(call.path)]
    given = option_arguments(call, options, "create", "-f", format, format_=format)
    told = json.loads(call.run("measure", "--output=json", "-O", format, *given, *source).stdout)
    return Measure(told["required"], told["fully-allocated"], told.get("bitmaps", 0))
