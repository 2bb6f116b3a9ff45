"""The cache directory with its images and templates, and the place where machines run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.cli.output import mib
from pytest_kvm.errors import HostError
from pytest_kvm.host.cache import CACHE_VARIABLE
from pytest_kvm.host.mounts import filesystem
from pytest_kvm.host.rundir import run_base
from pytest_kvm.images.builtin.built import built_guests
from pytest_kvm.images.fetching.downloads import Downloads
from pytest_kvm.machine.templates import Templates

_GROUP = "Storage"
# A template of a machine of the usual size: its memory, and its disks.
_TIGHT = 1 << 30


def check(subject: Subject) -> Iterator[Row]:
    """Look at the places and at what is in them."""
    yield _place("cache", subject.cache, "keeps images and templates", f"set {CACHE_VARIABLE} to a directory with room")
    yield _images(subject.cache)
    yield _templates(subject.cache)
    try:
        base = Path(run_base())
    except HostError as error:
        yield Row(group=_GROUP, name="TMPDIR", state=State.BROKEN, text=error.trouble, fix=error.hint, needed=True)
    else:
        yield _place("TMPDIR", base, "machines keep disks and sockets there", "set TMPDIR to a directory with room")


def _place(name: str, path: Path, purpose: str, fix: str) -> Row:
    usage = shutil.disk_usage(path)
    kind = _filesystem(path)
    state, text = State.OK, f"{path}, {mib(usage.free)} free of {mib(usage.total)}"
    if not os.access(path, os.W_OK | os.X_OK):
        state, text = State.BROKEN, f"{path} cannot be written"
    elif usage.free < _TIGHT:
        state, text = State.NOTE, f"{text}: a machine's template and disks take some 300 MiB"
    if kind == "tmpfs":
        text = f"{text} (tmpfs: what is in it takes memory)"
    return Row(
        group=_GROUP,
        name=name,
        state=state,
        text=text,
        purpose=purpose,
        fix="" if state is State.OK else fix,
        needed=True,
        data={"path": str(path), "free": usage.free, "total": usage.total, "filesystem": kind},
    )


def _filesystem(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return filesystem(descriptor)
    finally:
        os.close(descriptor)


def _images(cache: Path) -> Row:
    built = built_guests(cache)
    fetched = [entry for entry in Downloads(cache / "downloads").entries() if entry.path is not None]
    sizes = [*(guest.size for guest in built), *(entry.size for entry in fetched)]
    names = [*(guest.name for guest in built if guest.current), *(entry.name for entry in fetched)]
    return Row(
        group=_GROUP,
        name="images",
        state=State.OK if names else State.NOTE,
        text=f"{', '.join(names)} ({mib(sum(sizes))})" if names else "none yet",
        purpose="what machines boot",
        fix="" if names else "pytest-kvm images build (else the first test does it)",
        data={"names": names, "size": sum(sizes)},
    )


def _templates(cache: Path) -> Row:
    entries = Templates(cache / "templates").entries()
    damaged = sum(entry.state is None for entry in entries)
    size = sum(entry.size for entry in entries)
    text = f"{len(entries)} ({mib(size)})" if entries else "none yet"
    return Row(
        group=_GROUP,
        name="templates",
        state=State.NOTE if damaged else State.OK,
        text=f"{text}, {damaged} of them damaged" if damaged else text,
        purpose="booted machines, for clones to begin with",
        fix="pytest-kvm templates prune" if damaged else "",
        data={"count": len(entries), "damaged": damaged, "size": size},
    )
