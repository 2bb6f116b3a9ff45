"""What is refused is refused in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm import SpecError
from tests.images.verbs.disks import tree


def refused(folder: Path, call: Callable[[], object], kind: type[Exception] = SpecError) -> str:
    """Return why a call is refused, which has changed nothing."""
    before = tree(folder)
    with pytest.raises(kind) as refusal:
        call()
    assert type(refusal.value) is kind
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    assert tree(folder) == before
    return str(refusal.value).replace(str(folder), "{}")
