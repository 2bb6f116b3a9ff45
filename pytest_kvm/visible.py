"""How is text shown that a guest, QEMU or a server wrote, so that it does nothing to the terminal it is shown on?"""

from __future__ import annotations

import re

# ECMA-48: control sequences (colours, bracketed paste, the cursor query of busybox), strings up to their terminator (a
# window's title), shorter sequences. A string ends with its line: it must not hide what comes after it.
ESCAPE_SEQUENCE = (
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]"
)
_SEQUENCE = re.compile(ESCAPE_SEQUENCE)
# A terminal shows the same without it. Not "\r+\n", which looks at each of many returns anew.
_RETURN = re.compile(r"(?<!\r)\r+\n")


def visible(text: str) -> str:
    r"""Return text of strangers as it can be shown to a person.

    Escape sequences are left out, as they print nothing. Of what is left, lines and tabs stay; every other character
    that is not printable is written as ``repr`` writes it, ``\x1b`` for example: control characters, those that reverse
    the direction of what follows, and the halves of characters that stand for bytes in names of files.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _RETURN.sub("\n", _SEQUENCE.sub("", text))
    return "".join(character if _harmless(character) else _escaped(character) for character in text)


def _harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
