"""What a folder of the host costs in a guest: to have it, to read many small files, to read a large one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm import Share, VMFactory
from tests.benchmarks.conftest import Table

FILES = 10_000
LARGE = 1 << 30
READ_ALL = "cd {folder} && find . -type f -exec cat {{}} + | wc -c"
COPIED = "copied with vm.ssh.put"


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(FILES):
        file = folder / str(number // 100) / str(number)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"this is file {number}\n" * 10)
    return folder


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    piece = os.urandom(1 << 20)
    with (folder / "file").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(piece)
    return folder


def timed(work: Callable[[], object]) -> list[float]:
    started = time.perf_counter()
    work()
    return [time.perf_counter() - started]


def test_many_files(vm_factory: VMFactory, table: Table, many: Path) -> None:
    size = sum(path.stat().st_size for path in many.rglob("*") if path.is_file())
    read = READ_ALL.format(folder="/mnt/many")
    vm = vm_factory(memory="512M", start="boot")
    vm.ssh.run("true")
    table.add(f"{FILES} files {COPIED}", timed(lambda: vm.ssh.put(many, "/mnt/many", timeout=600)), unit="s")
    table.add(f"{FILES} files read, {COPIED}", timed(lambda: vm.run(read, timeout=600)), unit="s")
    vm.kill()
    for method in ("virtiofs", "9p", "image"):
        vm = vm_factory(memory="512M", start="boot", shares=[Share(many, "/mnt/many", method=method)])
        assert vm.run(read, timeout=600).stdout == f"{size}\n"
        vm.reboot()  # what is cached is gone
        table.add(
            f"{FILES} files read, {method}",
            timed(lambda vm=vm: vm.run(read, timeout=600)),  # type: ignore[misc]
            f"{FILES} files read, {COPIED}",
            unit="s",
        )
        vm.kill()


def test_a_large_file(vm_factory: VMFactory, table: Table, large: Path) -> None:
    reference = ""
    read = "dd if=/mnt/large/file of=/dev/null bs=1M"
    for method in ("virtiofs", "9p", "image"):
        vm = vm_factory(memory="512M", start="boot", shares=[Share(large, "/mnt/large", method=method)])
        name = f"{LARGE >> 20} MiB read, {method}"
        seconds = timed(lambda vm=vm: vm.run(read, timeout=600))  # type: ignore[misc]
        table.add(name, seconds, *([reference] if reference else []), unit="s")
        reference = reference or name
        assert vm.run("stat -c %s /mnt/large/file").stdout == f"{LARGE}\n"
        vm.kill()


def test_having_it(vm_factory: VMFactory, table: Table, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    vm_factory(start="clone").kill()
    without = "a clone"
    table.add(without, [_started(vm_factory) for _ in range(5)])
    for method in ("9p", "image"):
        share = Share(tmp_path, "/mnt", method=method)
        table.add(f"a clone with a share, {method}", [_started(vm_factory, share) for _ in range(5)], without)


def _started(vm_factory: VMFactory, *shares: Share) -> float:
    vm = vm_factory(start="clone", shares=list(shares))
    vm.run("true")
    vm.kill()
    assert vm.started is not None
    return vm.started.seconds
