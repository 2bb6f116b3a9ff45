"""What guests print when nothing is wrong, or nothing that is the kernel's or the start's fault."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
# Whole boots, as they were on the console.
BOOTS = {path.stem: path.read_text().splitlines() for path in sorted((_FOLDER / "boots").glob("*.txt"))}
# A piece of one.
BOOT = BOOTS["debian-6.12"][:12] + BOOTS["debian-6.12"][-24:]
# Lines of kernels that have words in them that reports have, too.
MESSAGES = (_FOLDER / "innocent-kernel.txt").read_text().splitlines()
# Lines of programs, on a console.
PROGRAMS = (_FOLDER / "innocent-programs.txt").read_text().splitlines()
