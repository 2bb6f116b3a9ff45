"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# The languages of blocks that may be files: a comment in the first line, or below "#!", names one.
FILES = {"python", "toml", "ini", "yaml", "sh"}
COMMANDS = ("sh", "console")
SAID = "text"
LANGUAGES = {*FILES, *COMMANDS, SAID}


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its text, the ``file`` that it is, the ``line`` where it is."""

    language: str
    text: str
    file: str
    line: int


def pages() -> list[Path]:
    """Return all pages with blocks, the README among them."""
    return [page for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))] if blocks(page)]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page; MyST's directives are none."""
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        language = token.info.partition(" ")[0]
        if token.type == "fence" and not language.startswith("{"):
            assert token.map is not None
            names = (re.fullmatch(r"# ([\w./-]+\.\w+)", line) for line in token.content.splitlines()[:2])
            name = next((match[1] for match in names if match), "") if language in FILES else ""
            found.append(Block(language, token.content, name, token.map[0] + 1))
    return found
