"""Join overlays with the images below them, and put them on other ones."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_kvm.images.verbs.call import Call, PathLike, Progress
from pytest_kvm.images.verbs.chain import OVERLAYS, find_chain, settle_backing, settle_format
from pytest_kvm.images.verbs.making import relative_name
from pytest_kvm.images.verbs.reading import read_info
from pytest_kvm.spec.wording import Rejected, listed

# Otherwise qemu-img writes an overlay's new header before its tables, which say where the data are: killed in between,
# it leaves an image without a backing file and without the data (seen with QEMU 7.2 and 10.0, after every third kill).
_IN_ORDER = ("-t", "writethrough")


def commit(
    path: PathLike,
    *,
    base: PathLike | None = None,
    empty: bool = True,
    format: str | None = None,
    progress: Progress = False,
    qemu: str | None = None,
) -> Path:
    """Write what is in an overlay into the image below it, and return that one's path.

    ``base`` is an image further down: then all between them is written into it, too, and nothing is emptied, and what
    is between them is good for nothing any more. With ``empty`` (the default) the overlay has nothing of its own
    afterwards. ``format`` is the overlay's (default: found out), ``progress`` is told how far it is. Other overlays
    on the image below do not survive this.

    Raises SpecError, HostError, QemuImgError; then the overlay still has all that it had, even if the image below has
    some of it.
    """
    call = Call("commit", path, qemu)
    call.flags(empty=empty)
    arguments = call.reporting(progress)
    call.existing(call.path, written=True)
    format_ = settle_format(call, call.path, format)
    below = _below(call, format_)
    target = below[0] if below else None
    if base is not None:
        target = _in_chain(call, call.place("base", base), below)
        arguments += ["-b", str(target)]
    if target is None:
        name = read_info(call, call.path, format_).backing_name
        nothing = "it is no overlay: there is nothing below it"
        raise call.rejected(nothing if name is None else f"what is below it is no file: {name!r}")
    call.existing(target, "the image below it,", written=True)
    arguments += [] if empty else ["-d"]
    call.run("commit", "-f", format_, *_IN_ORDER, *arguments, str(call.path), progress=progress, written=target)
    return target


def _below(call: Call, format_: str) -> list[Path]:
    """Return the images that one is an overlay on, as far as they are files."""
    if format_ == "qcow2":
        return find_chain(call.path, format_)[1:]
    return [each.path for each in read_info(call, call.path, format_, chain=True).chain]


def _in_chain(call: Call, base: Path, below: list[Path]) -> Path:
    for each in below:
        if base.exists() and each.samefile(base):
            return each
    with call.argument("base", str(base)):
        known = f"it is on {listed(repr(str(each)) for each in below)}" if below else "it is no overlay"
        raise Rejected(f"{str(call.path)!r} is no overlay on that; {known}")


def rebase(
    path: PathLike,
    backing: PathLike | None,
    *,
    backing_format: str | None = None,
    relative_backing: bool = False,
    unsafe: bool = False,
    format: str | None = None,
    progress: Progress = False,
    qemu: str | None = None,
) -> None:
    """Put an overlay on another image, so that a guest reads the same from it as before.

    ``backing`` is the other image, ``backing_format`` its format, which has to be said; None: the overlay takes all
    that it needs from below, and is an overlay no more. ``relative_backing`` writes a name that begins at the
    overlay's folder. ``unsafe`` only writes the name, and looks at nothing: for an image that has moved, or that has
    the same content. ``format`` is the overlay's (default: found out), ``progress`` is told how far it is.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("rebase", path, qemu)
    call.flags(unsafe=unsafe, relative_backing=relative_backing)
    arguments = call.reporting(progress)
    call.existing(call.path, written=True)
    format_ = settle_format(call, call.path, format, follow=not unsafe)
    if format_ not in OVERLAYS:
        raise call.rejected(f"a {format_} image is no overlay; {listed(OVERLAYS)} can be")
    if backing is None:
        with call.argument("backing", backing):
            if backing_format is not None or relative_backing:
                raise Rejected("backing_format= and relative_backing= are of a backing file, and there is none")
        arguments += ["-b", ""]
    else:
        below = call.place("backing", backing)
        below_format = settle_backing(call, below, backing_format)
        _check_no_loop(call, find_chain(below, below_format))
        # Absolute, it is found from here; the relative name is written when all is done.
        arguments += ["-b", str(below), "-F", below_format]
    arguments += ["-u"] if unsafe else []
    call.run("rebase", "-f", format_, *_IN_ORDER, *arguments, str(call.path), progress=progress)
    if backing is not None and relative_backing:
        name = relative_name(below, call.path)
        call.run("rebase", "-q", "-u", "-f", format_, "-b", name, "-F", below_format, str(call.path))


def _check_no_loop(call: Call, chain: list[Path]) -> None:
    if any(os.path.samefile(each, call.path) for each in chain):
        files = " on ".join(repr(str(each)) for each in (call.path, *chain))
        raise call.rejected(f"it would be an overlay on itself: {files}")
