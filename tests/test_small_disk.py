"""A disk of 64 MB: errors that name it, no hang, nothing half written, and all is well again once there is room."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from pytest_kvm.host.cache import cache_dir
from tests.sessions import Session, temporary

__all__ = ["temporary"]  # a fixture

# Mounts it, and runs a command that knows where that is.
MOUNT = 'mount -t tmpfs -o size=64m none "$0" && mkdir -m 700 "$0/tmp" "$0/cache" && export TMPDIR="$0/tmp" && "$@"'
# The cache is on it, too, but for packages that need not be fetched; each run has more room than the one before.
GROW = """
cache=$(dirname "$TMPDIR")/cache
export PYTEST_KVM_CACHE=$cache
ln -s "$SHARED/packages" "$cache"
for size in 64m 120m 1g; do
    mount -o remount,size=$size "$(dirname "$TMPDIR")" && "$@"
    status=$?
    left=$(ls -d "$TMPDIR"/pytest-kvm-* "$cache"/images/building.* "$cache"/templates/*.* 2>&-)
    echo "with $size: status $status, left: $left."
done
"""


@pytest.fixture
def small(temporary: Path) -> list[str]:
    """A command that runs another one with the directory for temporary files on a small disk."""
    command = ["unshare", "-rm", "sh", "-c", MOUNT, str(temporary)]
    tried = shutil.which("unshare") is not None and subprocess.run(
        [*command, "mount", "-o", "remount,size=65m", str(temporary)], capture_output=True, check=False
    )
    if not tried or tried.returncode != 0:
        pytest.skip("no private mounts here")
    return command


def test_guest_and_template(pytester: pytest.Pytester, temporary: Path, small: list[str]) -> None:
    pytester.makepyfile("def test_it(vm): print(f'a {vm.started.kind}')")
    within = [*small, "sh", "-c", GROW, "sh"]
    environment = {"SHARED": str(cache_dir())}
    options = ("--kvm-offline", "-rA")
    with closing(Session(pytester.path, temporary, *options, environment=environment, within=within)) as session:
        session.end()
        said = session.said()
    assert "Traceback" not in said
    small_, larger, large = said.split("= test session starts =")[1:]
    cache = f"{temporary}/cache"
    assert f"cannot be made in {cache}: No space left on device" in small_
    assert "set PYTEST_KVM_CACHE to a directory that you may write, with 700 MB free" in small_
    assert "with 64m: status 1, left: ." in small_
    why = f"its template could not be written to {cache}/templates: No space left on device (PYTEST_KVM_CACHE names"
    assert why in larger
    assert "a boot\n" in larger
    assert "with 120m: status 0, left: ." in larger
    assert "a clone\n" in large
    assert f"with 1g: status 0, left: {cache}/templates/" in large


# What fills the disk to the last byte.
FILL = """
    import os
    import pytest
    from pytest_kvm import Drive, DriveFailed, HostError, MachineError

    @pytest.fixture
    def full():
        path = os.path.join(os.environ["TMPDIR"], "full")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(descriptor, bytes(size))
            except OSError:
                pass
        os.close(descriptor)
        yield path
        os.unlink(path)

    @pytest.fixture(autouse=True, scope="session")
    def nothing_is_left():
        yield
        assert os.listdir(os.environ["TMPDIR"]) == []
"""


def run(pytester: pytest.Pytester, temporary: Path, small: list[str], test: str) -> str:
    """Run tests on the small disk; return what that says."""
    pytester.makepyfile(f"{FILL}{test}")
    with closing(Session(pytester.path, temporary, "--kvm-artifacts-dir", "results", within=small)) as session:
        session.end()
        said = session.said()
        assert session.processes() == []
    assert "site-packages" not in said
    assert "pytest_kvm/" not in said
    return said


def test_a_guest_fills_it(pytester: pytest.Pytester, temporary: Path, small: list[str]) -> None:
    said = run(
        pytester,
        temporary,
        small,
        """
    @pytest.mark.vm(drives=[Drive(size="200M")])
    def test_fill(vm):
        vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=150", timeout=600)

    def test_after(vm):
        vm.run("true")
    """,
    )
    assert "1 failed, 1 passed" in said
    assert "DriveFailed: VM 'vm': drive 'disk0' cannot be written, and the guest was stopped: No space left" in said


def test_it_is_full(pytester: pytest.Pytester, temporary: Path, small: list[str]) -> None:
    said = run(
        pytester,
        temporary,
        small,
        """
    def test_machine(full, vm): ...

    def test_goes_on(vm, full):
        assert vm.run("echo on; echo and on >&2").stdout == "on\\n"
        vm.console.login()
        assert vm.console.run("echo here").stdout == "here\\n"

    def test_snapshot(vm, full):
        vm.snapshot()

    def test_large_snapshot(vm):
        vm.run("head -c 80000000 /dev/urandom >/tmp/data")
        vm.snapshot()

    @pytest.mark.vm(drives=[Drive(size="1M", format="qcow2")], autostart=False)
    def test_disk(vm, full):
        os.truncate(full, os.path.getsize(full) - 65536)  # room for the machine's directory
        vm.start()

    def test_after(vm):
        vm.run("true")
    """,
    )
    base = f"{temporary}/tmp"
    assert said.count(f"cannot make a directory in {base}: No space left on device") >= 2
    assert f"no snapshot, {base}/pytest-kvm-" in said
    assert "cannot be written: No space left on device" in said
    assert "no disk can be made in" in said
