"""Find the image that a name or a path means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.images.distribution import known_suites, os_release
from pytest_kvm.images.image import Image
from pytest_kvm.images.progress import Report
from pytest_kvm.images.tiny import tiny_image


def image_names() -> list[str]:
    """Return the names that ``image=`` takes on this host, beside paths."""
    return ["tiny", *(f"tiny:{suite}" for suite in known_suites(os_release())), "cirros"]


def find_image(
    name: str | os.PathLike[str],
    *,
    offline: bool = False,
    archive: str | None = None,
    keyring: str | None = None,
    report: Report | None = None,
) -> Image:
    """Return the image called ``name``, or the disk image at that path; the built-in guest is built once.

    ``offline`` forbids downloads, ``archive`` is the address of a package archive (None: apt's own),
    ``keyring`` the file of keys that verifies it, ``report`` is told about what takes time. Raises SpecError
    if there is no such name or file, ImageUnavailable if the image cannot be had here and now.
    """
    text = os.fspath(name)
    if not isinstance(name, os.PathLike) and "/" not in text:
        names = image_names()
        if text == "cirros":
            raise ImageUnavailable(
                "image 'cirros' cannot be fetched by this release yet",
                hint="download its disk image and give the path, as in --kvm-image=./cirros-disk.img",
            )
        if text in names:
            suite = text.partition(":")[2] or None
            return tiny_image(suite, offline=offline, archive=archive, keyring=keyring, report=report)
        if not os.path.exists(text):
            near = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise SpecError(
                f"image {text!r} is neither a file nor one of {', '.join(names)}{guess}",
                keyword="image",
                value=text,
            )
    return _disk_image(Path(text))


def _disk_image(path: Path) -> Image:
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise SpecError(f"image {str(path)!r} cannot be read: {error.strerror}", keyword="image", value=path) from error
    # docs/interop/qcow2.txt of QEMU; what is not marked otherwise is taken as it is, and never guessed by
    # QEMU.
    disk_format = "qcow2" if magic == b"QFI\xfb" else "raw"
    return Image(name=str(path), disk=path.absolute(), disk_format=disk_format, ready="login")
