"""The instructions around a fault, from the bytes that a kernel prints: ``Code: 48 89 <0f> 0b``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pytest_kvm.kernel.traces.tools import Undecodable, run
from pytest_kvm.waiting import Deadline

# x86 prints bytes, arm64 words, each of which marks the one that was executed (as scripts/decodecode knows them).
_CODE = re.compile(r"Code: ([0-9a-f<>() ]+)$")
_WORD = re.compile(r"<[0-9a-f]+>|\([0-9a-f]+\)|[0-9a-f]+")
# What is executed says which instructions they are; those of user space are not the kernel's business.
_ARCHITECTURES = {
    re.compile(r"RIP: 0010:"): ("i386:x86-64", 1),
    re.compile(r"EIP: [A-Za-z_]"): ("i386", 1),
    re.compile(r"pc : [A-Za-z_]"): ("aarch64", 4),
    re.compile(r"[RE]IP: |pc : "): None,
}
# "  2a:	0f 0b                	ud2"
_INSTRUCTION = re.compile(r" *([0-9a-f]+):\t((?:[0-9a-f]{2,8} )+) *(?:\t(.*))?$", re.MULTILINE)
# An instruction of x86 has 15 bytes at most.
_LONGEST = 15


def disassembled(lines: list[str], deadline: Deadline) -> dict[int, list[str]]:
    """Return the instructions of each line of code among the lines of a report, by that line's number.

    There are none for what the host's objdump does not know. Raises Undecodable.
    """
    found: dict[int, list[str]] = {}
    kind: tuple[str, int] | None = None
    seen = set()
    for number, line in enumerate(lines):
        for pattern, known in _ARCHITECTURES.items():
            if pattern.search(line):
                kind = known
                break
        match = _CODE.search(line)
        if match is not None and kind is not None and match[1] not in seen:
            seen.add(match[1])
            found[number] = _instructions(match[1].split(), *kind, deadline)
    return found


def _instructions(words: list[str], machine: str, width: int, deadline: Deadline) -> list[str]:
    marked = next((number for number, word in enumerate(words) if word[0] in "<("), None)
    plain = [word.strip("<>()") for word in words]
    good = all(_WORD.fullmatch(word) for word in words) and {len(word) for word in plain} == {2 * width}
    if marked is None or not good:
        return []
    data = b"".join(bytes.fromhex(word)[::-1] for word in plain)
    at = marked * width
    with tempfile.TemporaryDirectory(prefix="pytest-kvm-") as folder:
        file = Path(folder) / "code"
        file.write_bytes(data)
        try:
            # Where the first instruction begins is not known: where it leads to the one that is marked.
            for start in range(min(at, _LONGEST) + 1):
                found = list(_disassemble(file, machine, start, deadline))
                if any(each.at == at for each in found):
                    break
            else:
                found = list(_disassemble(file, machine, at, deadline))
        except Undecodable as error:
            if "machine" in str(error):  # objdump is not built for this one
                return []
            raise
    return [f"{'=>' if each.at == at else '  '} {each.text}" for each in found]


class _Instruction(NamedTuple):
    at: int
    text: str


def _disassemble(file: Path, machine: str, start: int, deadline: Deadline) -> Iterator[_Instruction]:
    options = ("-D", "-z", "-b", "binary", "-m", machine, "--insn-width=16", f"--start-address={start}")
    said = run("objdump", *options, str(file), deadline=deadline)
    for match in _INSTRUCTION.finditer(said):
        yield _Instruction(int(match[1], 16), f"{match[2].strip():<30} {(match[3] or '').strip()}".rstrip())
