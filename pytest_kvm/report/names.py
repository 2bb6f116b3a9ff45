"""Names of folders for tests, whatever they are called."""

from __future__ import annotations

import hashlib
import re

# A file name has 255 bytes at most; paths have limits, too, and other systems lower ones.
_HEAD, _TAIL = 60, 40
_DIGITS = 10


def folder_of_test(test: str) -> str:
    """Return the name of the folder for a test, of which ``test`` is the id, such as ``test_it.py::test_boot[q35]``.

    It has nothing but letters, digits, ``.``, ``_`` and ``-``, and ends in digits of a hash of the id: no two tests
    have the same one, not even where upper and lower case are one.
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", test).strip("-.")
    if len(readable) > _HEAD + _TAIL:
        readable = f"{readable[:_HEAD]}-{readable[-_TAIL:]}"
    return f"{readable}-{_digest(test)}".lstrip("-")


def folder_of_machine(name: str, taken: frozenset[str]) -> str:
    """Return the name of the folder for a machine in its test's; ``taken`` are those of others, in lower case."""
    number, chosen = 1, name
    while chosen.lower() in taken:
        number += 1
        chosen = f"{name}-{number}"
    return chosen


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
