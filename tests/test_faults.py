"""Each row of the documented fault matrix is a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| .* \| (tests/\S+\.py)::(\w+) \|$", re.MULTILINE)


def test_each_row_is_a_test() -> None:
    _, _, matrix = (
        (ROOT / "docs" / "explanation" / "verdicts.md").read_text(encoding="utf-8").partition("## The fault matrix")
    )
    rows = ROW.findall(matrix)
    assert len(rows) > 30
    assert len(rows) == matrix.count("\n|") - 2
    for file, test in rows:
        # Some are tests of a session that is run by a test.
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{test}"
