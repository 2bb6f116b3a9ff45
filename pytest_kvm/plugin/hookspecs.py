"""The hooks that a conftest.py or another plugin may implement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvm.spec.image import Image


@pytest.hookspec
def pytest_kvm_images(config: pytest.Config) -> Mapping[str, Image] | None:
    """Return images by the names under which ``image=`` shall find them; asked once, before the first machine.

    Relative paths in them start at the root folder. They go before those of ``pyproject.toml``, which go before those
    of the catalogue.
    """
