"""Every block of code in the documentation does what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.host.cache import cache_dir
from tests.docs.pages import LANGUAGES, ROOT, blocks, pages
from tests.docs.running import Reader
from tests.guests.kernels import FAULTY, LAMP, make_module, make_tree
from tests.kernel.kselftests import install
from tests.qemu.fakes import program

PAGES = pages()
# What a reader has built: of the kernel's selftests, and modules.
SELFTESTS = {
    "timers:nanosleep": "#!/bin/sh\necho TAP version 13; echo 1..1; echo ok 1 CLOCK_TAI\n",
    "timers:raw_skew": "#!/bin/sh\necho the clock is off; exit 1\n",
    "size:get_size": "#!/bin/sh\n",
}
MODULES = {"driver/faulty.ko": FAULTY, "driver/lamp.ko": LAMP}
# Many machines that nobody has booted before.
SLOW = ("machines.md", "memory.md", "budget.md", "block.md", "board.md")
# They remove what others need, or depend on what others have.
OWN_CACHE = ("clones.md", "budget.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.name in SLOW else [], id=str(page.relative_to(ROOT)))
        for page in PAGES
    ],
)
def test_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = blocks(page)
    assert {block.language for block in found} <= LANGUAGES
    cache = cache_dir()
    if page.name in OWN_CACHE:
        cache = tmp_path / "cache"
        cache.mkdir()
        for shared in cache_dir().iterdir():
            if shared.name not in ("templates", "budget"):
                (cache / shared.name).symlink_to(shared)
    reader = Reader(tmp_path, {"PYTEST_KVM_CACHE": str(cache)})
    if "cirros" in page.read_text(encoding="utf-8"):
        reader.provide(request.getfixturevalue("cirros_disk"))
    if "--kvm-kernel=linux" in page.read_text(encoding="utf-8"):
        tree = make_tree(request.getfixturevalue("installed_kernel"), reader.folder / "linux")
        program(tree / "scripts" / "config", "exit 0\n")
        install(tree / "tools" / "testing" / "selftests" / "kselftest_install", SELFTESTS)
    for name, source in MODULES.items():
        if name in page.read_text(encoding="utf-8"):
            make_module(request.getfixturevalue("installed_kernel"), reader.folder / "driver", source)
    reader.follow(found)
