"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

from pytest_kvm.host.cache import CACHE_VARIABLE, cache_dir

pytest_plugins = ["pytester", "tests.guests.fixtures"]


def pytest_configure() -> None:
    # Inner sessions have a HOME of their own, where each would make the guest again.
    os.environ.setdefault(CACHE_VARIABLE, str(cache_dir()))
    # The same examples each time, however slow the machine.
    settings.register_profile("pytest-kvm", derandomize=True, deadline=None, database=None)
    settings.load_profile("pytest-kvm")
