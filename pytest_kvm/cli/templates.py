"""``pytest-kvm templates``: the booted machines that are kept for clones; what they are, and how to be rid of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_kvm.cli.output import date, mib, print_table
from pytest_kvm.errors import SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.machine.settings import DEFAULT_TEMPLATE_LIMIT
from pytest_kvm.machine.templates import Entry, Templates
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.wording import about

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_ABOUT = ("image", "machine", "smp", "memory", "accel", "qemu")


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "templates",
        help="list or remove the booted machines that are kept for clones",
        description="The templates in the cache directory: machines that were booted once, for clones to begin with.",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="show them, the one used last first")
    listing.set_defaults(run=_list)
    remove = verbs.add_parser("remove", help="remove some; what is in use stays")
    remove.add_argument("keys", nargs="*", metavar="KEY", help="of 'list', or the beginning of one")
    remove.add_argument("--all", action="store_true", help="remove all that are not in use")
    remove.set_defaults(run=_remove)
    prune = verbs.add_parser("prune", help="remove those used longest ago, and damaged ones")
    prune.add_argument(
        "--limit", metavar="SIZE", help="what the others may take (default: 4G, as of --kvm-template-limit)"
    )
    prune.set_defaults(run=_prune)


def _store() -> Templates:
    return Templates(cache_dir() / "templates")


def _list(_: argparse.Namespace) -> int:
    entries = _store().entries()
    if entries:
        print_table([_row(entry) for entry in entries], ["key", *_ABOUT, "boot", "size", "last used", ""])
    print(_total(entries, "in"), _store().directory)
    return 0


def _row(entry: Entry) -> list[str]:
    used = date(entry.used)
    if entry.state is None:
        return [entry.key, *([""] * (len(_ABOUT) + 1)), mib(entry.size), used, "damaged"]
    guest = entry.state.guest
    about = [guest.about.get(key, "") for key in _ABOUT]
    return [entry.key, *about, f"{guest.seconds:.1f} s", mib(entry.size), used, "in use" if entry.held else ""]


def _remove(options: argparse.Namespace) -> int:
    if bool(options.keys) == options.all:
        raise SpecError("templates remove: give keys, or --all")
    store = _store()
    entries = store.entries()
    chosen = entries if options.all else [_find(key, entries) for key in options.keys]
    removed = [entry for entry in chosen if store.remove(entry.key)]
    for entry in chosen:
        if entry not in removed:
            print(f"template {entry.key} is in use", file=sys.stderr)
    print(_total(removed, "removed"))
    return 0 if len(removed) == len(chosen) else 1


def _find(key: str, entries: Iterable[Entry]) -> Entry:
    found = [entry for entry in entries if entry.key.startswith(key)]
    if len(found) != 1:
        several = f"{len(found)} templates begin with" if found else "there is no template"
        raise SpecError(f"templates remove: {several} {key!r}; 'pytest-kvm templates list' shows them")
    return found[0]


def _prune(options: argparse.Namespace) -> int:
    limit = DEFAULT_TEMPLATE_LIMIT
    if options.limit is not None:
        with about(f"templates prune --limit={options.limit}", keyword="limit", value=options.limit):
            limit = 0 if options.limit == "0" else read_size(options.limit)
    print(_total(_store().prune(limit), "removed"))
    return 0


def _total(entries: list[Entry], what: str) -> str:
    return f"{len(entries)} template{'' if len(entries) == 1 else 's'}, {mib(sum(e.size for e in entries))} {what}"
