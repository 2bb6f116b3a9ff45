"""Reports of a kernel with the files and lines that they speak of, as far as there is debug information."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_kvm.images.kernels.source import Kernel
from pytest_kvm.kernel.traces.code import disassembled
from pytest_kvm.kernel.traces.lines import Line, read_lines
from pytest_kvm.kernel.traces.memory import Memory
from pytest_kvm.kernel.traces.places import Place, places_of
from pytest_kvm.kernel.traces.sources import build_id, has_debug, modules_of, unpacked, vmlinux_of
from pytest_kvm.kernel.traces.symbols import Address, read_symbols
from pytest_kvm.kernel.traces.tools import Undecodable
from pytest_kvm.waiting import Deadline

# Seconds for one report; a kernel's 600 MB take less than two.
_LIMIT = 30.0
# Functions whose files every kernel has, by which it can be seen where its tree was; assembly may think otherwise.
_LANDMARKS = {
    "kernel_init": "init/main.c",
    "entry_SYSCALL_64_after_hwframe": "arch/x86/entry/entry_64.S",
    "ret_from_fork": "arch/arm64/kernel/entry.S",
}
# More functions that have the same name and size say nothing.
_MOST = 3


@dataclass(frozen=True)
class Decoded:
    """A report: its ``lines``, each with what is to be shown beneath it; ``notes`` say what could not be decoded."""

    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([*(line for group in self.lines for line in group), *self.notes])


def raw(text: str) -> Decoded:
    """Return a report as it is."""
    return Decoded([[line] for line in text.strip("\n").splitlines()])


@dataclass(frozen=True)
class Decoder:
    """Decodes what a machine's ``kernel`` reports; ``loaded`` are modules that came from files of the host, by name.

    ``given`` are files with debug information that the user names, for whatever kernel it is. ``memory`` is what all
    decoders of a session share, ``limit`` in seconds.
    """

    kernel: Callable[[], Kernel | None]
    loaded: Mapping[str, Path]
    given: Sequence[Path] = ()
    memory: Memory = field(default_factory=Memory)
    limit: float = _LIMIT

    def __call__(self, text: str) -> Decoded:
        """Return the report decoded; whatever goes wrong, at least as it is."""
        try:
            with self.memory.lock:
                return _Decoding(self).decode(text.strip("\n").splitlines())
        except Exception as error:  # noqa: BLE001 - the report itself is what matters
            return Decoded(raw(text).lines, [_note(f"{type(error).__name__}: {error}")])


@dataclass
class _Decoding:
    """The decoding of one report."""

    by: Decoder
    notes: list[str] = field(default_factory=list)
    found: dict[Place, list[list[Line]]] = field(default_factory=dict)
    # What is left out of the names of files.
    prefixes: list[str] = field(default_factory=list)

    def decode(self, lines: list[str]) -> Decoded:
        places = places_of(lines)
        code: Mapping[int, list[str]] = {}
        wanted = {place for place in places if place is not None}
        memory = self.by.memory
        if memory.given_up:
            self.notes += [memory.given_up] if wanted else []
        elif wanted:
            deadline = Deadline(self.by.limit)
            try:
                if self._find(wanted, deadline):
                    code = disassembled(lines, deadline)
            except Undecodable as error:
                self.notes.append(str(error))
                memory.given_up = str(error) if deadline.expired else ""
        groups = [
            [*self._shown(line, place), *_beneath(line, "Code:", code.get(number, ()))]
            for number, (line, place) in enumerate(zip(lines, places, strict=True))
        ]
        return Decoded(groups, [_note(note) for note in self.notes])

    def _find(self, wanted: Collection[Place], deadline: Deadline) -> bool:
        """Find the lines of the places; return whether there is any debug information."""
        kernel = self.by.kernel()
        vmlinux = None
        if kernel is not None and kernel.release:
            subject = (kernel.release, kernel.version, kernel.file)
            vmlinux = self.by.memory.chosen(subject, lambda: vmlinux_of(kernel, self.by.given, self.notes))
        if kernel is not None and kernel.tree is not None:
            self.prefixes.append(f"{kernel.tree.resolve()}/")
        if vmlinux is not None:
            self._locate(vmlinux, [place for place in wanted if not place.module], deadline, _LANDMARKS)
        modules = {place.module for place in wanted if place.module}
        any_module = False
        with tempfile.TemporaryDirectory(prefix="pytest-kvm-") as folder:
            misfits: dict[str, str] = {}
            for name, path in self._files_of(modules, kernel, vmlinux):
                places = [place for place in wanted if place.module == name and place not in self.found]
                if places:
                    any_module |= self._locate_module(path, places, Path(folder), misfits, deadline)
            known = {place.module for place in self.found}
            self.notes += [why for name, why in misfits.items() if name not in known]
        return vmlinux is not None or any_module

    def _locate_module(
        self, path: Path, places: list[Place], folder: Path, misfits: dict[str, str], deadline: Deadline
    ) -> bool:
        with contextlib.suppress(OSError, ValueError):  # it is no module that can be read
            plain = unpacked(path, folder)
            if not has_debug(plain):
                return False
            ids = {place.build_id for place in places} - {""}
            if not ids or ids == {build_id(plain)}:
                self.prefixes.append(f"{path.parent.resolve()}/")
                self._locate(path, places, deadline, plain=plain)
            if not any(place in self.found for place in places):
                misfits[places[0].module] = f"{path} is another build than the module in the guest"
            return True
        return False

    def _files_of(
        self, modules: Collection[str], kernel: Kernel | None, vmlinux: Path | None
    ) -> Iterator[tuple[str, Path]]:
        """Yield the files that may have the debug information of modules, the likeliest of each first."""
        loaded = {name: self.by.loaded[name] for name in sorted(modules) if name in self.by.loaded}
        yield from loaded.items()
        others = sorted(set(modules) - loaded.keys())
        if others and kernel is not None and kernel.release:
            subject = (kernel.file, vmlinux, *others)
            yield from self.by.memory.places(subject, lambda: modules_of(kernel, vmlinux, others))

    def _locate(
        self,
        path: Path,
        places: Sequence[Place],
        deadline: Deadline,
        landmarks: Mapping[str, str] | None = None,
        *,
        plain: Path | None = None,
    ) -> None:
        """Find the lines of places in a file, which is read where it is ``plain``."""
        known = self.by.memory.about(path)
        fresh = [place for place in places if place not in known.lines]
        if fresh:
            marks = {Place(name, 0, 0, exact=True): file for name, file in (landmarks or {}).items()}
            symbols = read_symbols(plain or path, [*fresh, *marks], deadline)
            addresses = {place: symbols.find(place) for place in [*fresh, *marks]}
            lines = read_lines(plain or path, _unique(addresses.values()), deadline)
            for place in fresh:
                known.lines[place] = [lines[address] for address in addresses[place] if lines.get(address)]
            for mark, file in marks.items():
                for line in (line for address in addresses[mark] for line in lines.get(address, ())):
                    if line.file.endswith(f"/{file}"):
                        known.prefixes.append(line.file.removesuffix(file))
        self.prefixes += known.prefixes
        self.found |= {place: known.lines[place] for place in places if 0 < len(known.lines[place]) <= _MOST}

    def _shown(self, line: str, place: Place | None) -> Iterator[str]:
        candidates = self.found.get(place, []) if place is not None else []
        if not candidates or place is None:
            yield line
        elif len(candidates) > 1:
            yield f"{line} ({', or '.join(self._where(several[-1]) for several in candidates)})"
        else:
            ((inner, *outer),) = candidates
            yield f"{line} ({f'{inner.function} at ' if outer else ''}{self._where(inner)})"
            inlined = [f"(inlined by) {each.function} at {self._where(each)}" for each in outer]
            yield from _beneath(line, f"{place.function}+", inlined)

    def _where(self, line: Line) -> str:
        file = os.path.normpath(line.file)
        for prefix in self.prefixes:
            if file.startswith(os.path.normpath(prefix) + os.sep):
                file = file.removeprefix(os.path.normpath(prefix) + os.sep)
                break
        return f"{file}:{line.line}"


def _beneath(line: str, word: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield lines that stand beneath a word of a line, a bit to the right."""
    for text in texts:
        yield " " * (line.index(word) + 2) + text


def _unique(several: Iterable[Iterable[Address]]) -> list[Address]:
    return list(dict.fromkeys(address for each in several for address in each))


def _note(why: str) -> str:
    return f"(not decoded: {why})"
