"""``pytest-kvm images``: what there is to boot, what of it is in the cache, and how to have more or less of that."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.cli.output import age, date, mib, print_json, print_table
from pytest_kvm.errors import ImageUnavailable, KVMError, SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.images.builtin.built import Built, built_guests, full_name, is_built, remove_built
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.images.described import read_project
from pytest_kvm.images.fetching.downloads import Downloads, Entry
from pytest_kvm.images.fetching.source import Source
from pytest_kvm.images.trust import check_disk
from pytest_kvm.qemu.binary import find_qemu
from pytest_kvm.spec.image import Image
from pytest_kvm.visible import visible

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
# What is told of an image beside its files: how to get in, and what the guest needs.
_SHOWN = (
    *("format", "kernel", "initrd", "append", "login", "password", "ssh_user", "sudo", "agent"),
    *("ready", "settled", "seed", "memory", "cpu", "devices", "resume"),
)


def add_parser(commands: Commands) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "images",
        help="list, fetch, verify or remove images",
        description="The images that image= can name: the built-in guest, those that others publish, and those that"
        " the pyproject.toml here describes.",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, help_: str, run: object, *, names: str = "", json: bool = False) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help_)
        made.set_defaults(run=run)
        if names:
            made.add_argument(
                "names" if names in "+*" else "name", nargs=names if names in "+*" else None, metavar="NAME"
            )
        if json:
            made.add_argument("--json", action="store_true", help="print JSON")
        return made

    listing = verb("list", "show what is in the cache", _list, json=True)
    listing.add_argument("--all", action="store_true", help="show what could be fetched or built, too")
    verb("pull", "fetch an image, or the newer one that its publisher offers now", _pull, names="+")
    build = verb("build", "make the built-in guest (tiny, tiny:SUITE)", _build, names="*")
    build.add_argument("--refresh", action="store_true", help="of the newest packages")
    verify = verb("verify", "read images again, and say whether they are what was fetched", _verify, names="*")
    verify.add_argument("--all", action="store_true", help="verify all that are in the cache")
    verb("info", "say what an image is", _info, names="one", json=True)
    remove = verb("remove", "remove images from the cache", _remove, names="*")
    remove.add_argument("--all", action="store_true", help="remove all")
    remove.add_argument("--superseded", action="store_true", help="remove built-in guests of older packages")
    verb("path", "print where an image's disk is (the built-in guest: its folder)", _path, names="one")


def _report(line: str) -> None:
    print(visible(line), file=sys.stderr)


def _catalogue() -> Catalogue:
    return Catalogue(binary=find_qemu, described=read_project(Path.cwd()), report=_report)


def _list(options: argparse.Namespace) -> int:
    catalogue = _catalogue()
    guests, entries = built_guests(cache_dir()), catalogue.downloads().entries()
    here = {guest.name for guest in guests if guest.current} | {entry.name for entry in entries if entry.path}
    others = [name for name in catalogue.names() if name not in here] if options.all else []
    if options.json:
        print_json([*map(_built_facts, guests), *map(_entry_facts, entries), *({"name": name} for name in others)])
        return 0
    rows = [
        *([guest.name, mib(guest.size), age(guest.time), "" if guest.current else "superseded"] for guest in guests),
        *([entry.name, mib(entry.size or entry.partial), age(entry.time), _state(entry)] for entry in entries),
        *([name, "", "", "not here"] for name in others),
    ]
    if rows:
        print_table(rows, ["name", "size", "age", ""])
    size = sum(guest.size for guest in guests) + sum(entry.size + entry.partial for entry in entries)
    print(f"{len(guests) + len(entries)} in {cache_dir()}, {mib(size)}")
    return 1 if any(entry.trouble for entry in entries) else 0


def _state(entry: Entry) -> str:
    if entry.path is None:
        return "in part"
    return entry.trouble


def _built_facts(guest: Built) -> dict[str, object]:
    return {"kind": "built", **asdict(guest), "path": str(guest.path)}


def _entry_facts(entry: Entry) -> dict[str, object]:
    record = entry.record
    facts: dict[str, object] = {"kind": "fetched", "name": entry.name, "path": entry.path and str(entry.path)}
    facts |= {"size": entry.size, "partial": entry.partial, "time": entry.time, "trouble": entry.trouble}
    if record is not None:
        facts |= {"url": record.url, "checksum": str(record.checksum), "sha256": record.sha256}
    return facts


def _pull(options: argparse.Namespace) -> int:
    catalogue, status = _catalogue(), 0
    for name in options.names:
        try:
            _pull_one(name, catalogue)
        except KVMError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
    return status


def _pull_one(name: str, catalogue: Catalogue) -> None:
    if is_built(name):
        _build_one(name, refresh=True)
        return
    downloads = catalogue.downloads()
    source = _source(name, catalogue)
    if source is None:
        catalogue.describe(name)  # says what is wrong with the name, if anything is
        raise SpecError(f"image {name!r} is not fetched from anywhere", keyword="image", value=name)
    fetched = downloads.pull(*source)
    path = downloads.path(source[0])
    if path is not None:
        _check(path, _format(name, catalogue))
    print(f"{source[0]}: {'fetched' if fetched else 'is the newest already'}: {path}")


def _build(options: argparse.Namespace) -> int:
    for name in options.names or ["tiny"]:
        if not is_built(name):
            raise SpecError(f"images build: {name!r} is not built here; pull it", keyword="image", value=name)
        _build_one(name, refresh=options.refresh)
    return 0


def _build_one(name: str, *, refresh: bool) -> None:
    image = tiny_image(name.partition(":")[2] or None, refresh=refresh, report=_report)
    print(f"{image.label}: {_folder(image)}")


def _verify(options: argparse.Namespace) -> int:
    if bool(options.names) == options.all:
        raise SpecError("images verify: give names, or --all")
    catalogue, status = _catalogue(), 0
    downloads = catalogue.downloads()
    names = [_stored(name, catalogue) for name in options.names] or [each.name for each in downloads.entries()]
    formats = dict(zip(names, (_format(name, catalogue) for name in options.names or names), strict=True))
    for name in names:
        try:
            path = downloads.verify(name)
            _check(path, formats.get(name))
            print(f"{name}: good")
        except KVMError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
    return status


def _format(name: str, catalogue: Catalogue) -> str | None:
    """Return the format that an image is said to have; one that nobody describes any more has none."""
    try:
        return None if is_built(name) else catalogue.describe(name).format
    except SpecError:
        return None


def _check(path: Path, format_: str | None) -> None:
    check_disk(path, format_, binary=find_qemu(), remembered=Remembered(cache_dir() / "host"), alone=True)


def _info(options: argparse.Namespace) -> int:
    catalogue = _catalogue()
    facts: dict[str, object] = {"name": options.name}
    if is_built(options.name):
        guests = [guest for guest in built_guests(cache_dir()) if guest.name == full_name(options.name)]
        facts["builds"] = [_built_facts(guest) for guest in guests]
    else:
        source = catalogue.source(options.name)
        image = catalogue.describe(options.name)
        if source is not None:
            facts |= {"name": source[0], "urls": list(source[1].urls)}
            facts["checksum"] = str(source[1].checksum or source[1].checksum_url)
            entry = next((each for each in catalogue.downloads().entries() if each.name == source[0]), None)
            facts["cached"] = _entry_facts(entry) if entry is not None else None
        given = asdict(image)
        facts["image"] = {key: given[key] for key in _SHOWN if given[key] not in (None, "", (), False)}
    if options.json:
        print_json(facts)
    else:
        _print_facts(facts)
    return 0


def _print_facts(facts: dict[str, object], indent: str = "") -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _print_facts(value, indent + "  ")
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    print(f"{indent}{key}:")
                    _print_facts(item, indent + "  ")
                else:
                    print(f"{indent}{key}: {item}")
        else:
            print(f"{indent}{key}: {date(value) if key == 'time' and isinstance(value, float) else value}")


def _remove(options: argparse.Namespace) -> int:
    chosen = sum((bool(options.names), options.all, options.superseded))
    if chosen != 1:
        raise SpecError("images remove: give names, --superseded, or --all")
    catalogue = _catalogue()
    downloads, guests = catalogue.downloads(), built_guests(cache_dir())
    if options.superseded:
        size = sum(remove_built(guest) for guest in guests if not guest.current)
    elif options.all:
        size = sum(map(remove_built, guests)) + sum(downloads.remove(each.name) for each in downloads.entries())
    else:
        size = sum(_remove_one(name, catalogue, downloads, guests) for name in options.names)
    print(f"{mib(size)} removed")
    return 0


def _remove_one(name: str, catalogue: Catalogue, downloads: Downloads, guests: Iterable[Built]) -> int:
    if is_built(name):
        found = [guest for guest in guests if guest.name == full_name(name)]
        if not found:
            raise ImageUnavailable(f"image {name!r} is not in the cache {cache_dir()}")
        return sum(map(remove_built, found))
    stored = _stored(name, catalogue)
    if not any(each.name == stored for each in downloads.entries()):
        raise ImageUnavailable(f"image {name!r} is not in the cache {cache_dir()}")
    return downloads.remove(stored)


def _path(options: argparse.Namespace) -> int:
    catalogue = _catalogue()
    if is_built(options.name):
        full = full_name(options.name)
        path = next((each.path for each in built_guests(cache_dir()) if each.name == full and each.current), None)
        advice = f"'pytest-kvm images build {options.name}' makes it"
    else:
        path = catalogue.downloads().path(_stored(options.name, catalogue))
        advice = f"'pytest-kvm images pull {options.name}' fetches it"
    if path is None:
        raise ImageUnavailable(f"image {options.name!r} is not in the cache {cache_dir()}", hint=advice)
    print(path)
    return 0


def _folder(image: Image) -> Path:
    return Path(image.kernel).parent if image.kernel is not None else Path()


def _source(name: str, catalogue: Catalogue) -> tuple[str, Source] | None:
    """Return the name in the store, and the source, of an image; also of one that only the store knows by its name."""
    for each in catalogue.downloads().entries():
        if each.name == name and each.record is not None and catalogue.described.get(name) is None:
            record = each.record
            if record.checksum_url is None:
                return name, Source(urls=(record.url,), checksum=record.checksum, filename=record.filename)
    return catalogue.source(name)


def _stored(name: str, catalogue: Catalogue) -> str:
    """Return under which name an image is in the store; raises SpecError for one that nobody knows."""
    if any(each.name == name for each in catalogue.downloads().entries()):
        return name
    if is_built(name):
        raise SpecError(f"image {name!r} is built here, not fetched; 'pytest-kvm images build --refresh' makes it anew")
    source = catalogue.source(name)
    if source is None:
        catalogue.describe(name)
    return source[0] if source is not None else name
