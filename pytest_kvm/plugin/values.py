"""What the texts of options mean.

Each function takes a text, and the folder that relative paths start at; it raises SpecError for a text that cannot be.
"""

from __future__ import annotations

import os
from pathlib import Path

OFF = "off"
BOTH = "both"
ARTIFACTS = ("on-failure", "always", "never")


def accel(text: str, _: Path) -> str:
    """An accelerator, as the marker takes it."""
    from pytest_kvm.spec.fields import CHECKS

    CHECKS["accel"](text)
    return text


def image(text: str, folder: Path) -> str | Path:
    """The name of an image, or a path."""
    from pytest_kvm.spec.fields import CHECKS, is_path

    CHECKS["image"](text)
    return folder / text if is_path(text) else text


def qemu(text: str, folder: Path) -> list[str]:
    """A QEMU: a path or a name."""
    from pytest_kvm.spec.values import path

    path(text)
    return [str(folder / text) if os.sep in text else text]


def kernels(text: str, folder: Path) -> list[str]:
    """A kernel, a pattern of several, or the name of a built-in guest."""
    from glob import glob

    from pytest_kvm.spec.values import path
    from pytest_kvm.spec.vm import BUILT_IN
    from pytest_kvm.spec.wording import expected

    path(text)
    if text.startswith(BUILT_IN):
        return [text]
    found = sorted(glob(str(folder / text)))
    if not found:
        raise expected("a kernel, or a pattern of some; there is no such file", text)
    return found


def vmlinux(text: str, folder: Path) -> list[str]:
    """A file with a kernel's debug information."""
    from pytest_kvm.files import why_unreadable
    from pytest_kvm.images.kernels.banner import read_banner
    from pytest_kvm.kernel.traces.sources import has_debug
    from pytest_kvm.spec.values import path
    from pytest_kvm.spec.wording import Rejected

    path(text)
    file = folder / text
    why = why_unreadable(file)
    if why is not None:
        raise Rejected(why)
    try:
        good = has_debug(file) and read_banner(file) is not None
    except ValueError:
        good = False
    if not good:
        raise Rejected("this is no vmlinux with debug information (CONFIG_DEBUG_INFO)")
    return [str(file)]


def timeout(text: str, _: Path) -> float:
    """A number of seconds."""
    from pytest_kvm.spec.values import seconds
    from pytest_kvm.spec.wording import expected

    try:
        value = float(text)
    except ValueError:
        raise expected("a number of seconds, more than 0", text) from None
    seconds(value)
    return value


def start(text: str, _: Path) -> str:
    """How machines begin, or both ways."""
    from pytest_kvm.spec.fields import START
    from pytest_kvm.spec.values import one_of

    one_of(*START, BOTH)(text)
    return text


def share(text: str, _: Path) -> str:
    """How folders come into guests."""
    from pytest_kvm.spec.share import METHODS
    from pytest_kvm.spec.values import one_of

    one_of(*METHODS)(text)
    return text


def size(text: str, _: Path) -> int:
    """A size; 0 is none."""
    from pytest_kvm.spec.size import read_size

    return 0 if text == "0" else read_size(text)


def budget(text: str, _: Path) -> int:
    """A size, or off."""
    from pytest_kvm.host.amounts import UNLIMITED
    from pytest_kvm.spec.size import SIZE_TEXT, read_size
    from pytest_kvm.spec.wording import expected

    if text != OFF and SIZE_TEXT.fullmatch(text) is None:
        raise expected("a size such as '6G', or 'off'", text)
    return UNLIMITED if text == OFF else read_size(text)


def count(text: str, _: Path) -> int:
    """A number, or off."""
    from pytest_kvm.host.amounts import UNLIMITED
    from pytest_kvm.spec.wording import expected

    if text == OFF:
        return UNLIMITED
    if not text.isdecimal() or int(text) == 0:
        raise expected("a number, at least 1, or 'off'", text)
    return int(text)


def times(text: str, _: Path) -> int:
    """A number of times."""
    from pytest_kvm.spec.wording import expected

    if not text.isdecimal() or int(text) == 0:
        raise expected("a number, at least 1", text)
    return int(text)


def artifacts(text: str, _: Path) -> str:
    """When artifacts are kept."""
    from pytest_kvm.spec.values import one_of

    one_of(*ARTIFACTS)(text)
    return text


def archive(text: str, _: Path) -> str:
    """The address of an archive."""
    from pytest_kvm.spec.wording import Rejected

    if not text.isprintable() or " " in text:
        raise Rejected("an archive's address has no blanks")
    return text


def file(text: str, folder: Path) -> str:
    """A path."""
    from pytest_kvm.spec.values import path

    path(text)
    return str(folder / text)
