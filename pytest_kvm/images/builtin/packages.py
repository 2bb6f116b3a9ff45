"""Read package indexes, and find out which packages a package needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


class UnknownPackage(LookupError):
    """An index does not list a package, nor one that provides it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package: ``filename`` is relative to the archive, ``size`` in bytes, ``sha256`` in hex digits."""

    name: str
    version: str
    architecture: str
    filename: str
    size: int
    sha256: str
    depends: tuple[str, ...] = ()


class PackageIndex:
    """The packages of a suite, from the text of its Packages files.

    Such a text has 50 MB, and a few of its 70,000 stanzas are wanted: they are parsed when asked for.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [f"\n{text}" for text in texts]  # so that every field follows a newline

    def find(self, name: str) -> Package:
        """Return the named package, or the first one that provides the name.

        Raises UnknownPackage if there is neither, ValueError if its stanza lacks a field.
        """
        for text in self._texts:
            # Looking for plain text is much faster than a pattern in (?m) mode.
            position = text.find(f"\nPackage: {name}\n")
            if position >= 0:
                return _parse(_stanza(text, position))
        for text in self._texts:
            for match in re.finditer(r"\nProvides:[^\n]*[ ,]" + re.escape(name) + r"[ ,\n]", text):
                return _parse(_stanza(text, match.start()))
        raise UnknownPackage(name)

    def resolve(self, roots: Iterable[str], follow: Callable[[str], bool]) -> list[Package]:
        """Return ``roots`` and what they depend on, as far as ``follow`` accepts a name, sorted by name.

        Of alternatives the first is taken; Pre-Depends count. Raises UnknownPackage.
        """
        found: dict[str, Package] = {}
        waiting = list(roots)
        seen = set(waiting)
        while waiting:
            package = self.find(waiting.pop())
            found[package.name] = package
            new = [name for name in package.depends if name not in seen and follow(name)]
            seen.update(new)
            waiting += new
        return [found[name] for name in sorted(found)]


def _stanza(text: str, position: int) -> str:
    start = text.rfind("\n\n", 0, position + 1)
    end = text.find("\n\n", position + 1)
    return text[max(start, 0) : end if end >= 0 else len(text)].strip("\n")


def parse_fields(stanza: str) -> dict[str, str]:
    """Return the fields of one stanza of a control file; continuation lines are joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in {" ", "\t"}:
            if name:
                fields[name] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


# Debian Policy, 5.6.1 and 5.6.12. These go into command lines and names of files.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*")
_SHA256 = re.compile(r"[0-9a-f]+")


def _parse(stanza: str) -> Package:
    fields = parse_fields(stanza)
    for key, pattern in (("Package", _NAME), ("Version", _VERSION), ("SHA256", _SHA256)):
        if key in fields and not pattern.fullmatch(fields[key]):
            raise ValueError(f"an index entry has an impossible {key}: {stanza[:80]!r}")
    try:
        return Package(
            name=fields["Package"],
            version=fields["Version"],
            architecture=fields["Architecture"],
            filename=fields["Filename"],
            size=int(fields["Size"]),
            sha256=fields["SHA256"],
            depends=tuple(
                dict.fromkeys(
                    name for key in ("Pre-Depends", "Depends") for name in _first_alternatives(fields.get(key, ""))
                )
            ),
        )
    except KeyError as error:
        raise ValueError(f"an index entry has no field {error.args[0]}: {stanza[:80]!r}") from error


def _first_alternatives(relations: str) -> Iterator[str]:
    # "libc6 (>= 2.38), debconf:any (>= 1) | debconf-2.0": names end at a blank, a colon or a parenthesis.
    for relation in relations.split(","):
        name = re.split(r"[\s:(|\[<]", relation.strip(), maxsplit=1)[0]
        if name:
            yield name
