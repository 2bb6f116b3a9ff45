"""``pytest-kvm sweep``: away with what killed sessions left."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_kvm.cli.output import mib
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.sweep import Removed, Swept, sweep, told
from pytest_kvm.images.leftovers import sweep_cache
from pytest_kvm.machine.templates import Templates

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "sweep",
        help="remove what killed sessions left",
        description="Removes directories of machines whose session was killed, ends a QEMU that runs on in one of them,"
        " and tidies the cache directory. Only what is this user's and provably nobody's any more: what is in use, and"
        " what is in doubt, stays. Every session does that for the first part before its first machine.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    cache = cache_dir()
    directories = sweep(dry_run=options.dry_run)
    kept = sweep_cache(cache, dry_run=options.dry_run)
    kept.removed += Templates(cache / "templates").sweep(dry_run=options.dry_run)
    verb = "would be removed" if options.dry_run else "removed"
    for swept in (directories, kept):
        _list(swept, verb)
    print(told(directories.removed, verb))
    print(f"{len(kept.removed)} in the cache {cache} {verb} ({mib(sum(one.size for one in kept.removed))})")
    return 0


def _list(swept: Swept, verb: str) -> None:
    for removed in swept.removed:
        print(f"{removed.path}: {verb} ({mib(removed.size)}{_with(removed)})")
    for left in swept.left:
        print(f"{left.path}: left, {left.reason}")


def _with(removed: Removed) -> str:
    return "".join(f", with QEMU process {pid}" for pid in removed.ended)
