"""What fails in the middle leaves what it read as it was, and nothing of what it was making."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_kvm import QemuImgError, images
from tests.images.verbs.disks import content, tree, write
from tests.qemu.fakes import program


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A disk that takes its time."""
    return write(images.create(tmp_path / "large", "64M"), 7, mib=48)


def children() -> list[int]:
    return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


def halfway(do: Callable[[], object]) -> tuple[Callable[[float], None], list[float]]:
    """Return what does something when a part is done, once, and what it was told."""
    told: list[float] = []

    def progress(fraction: float) -> None:
        begun = any(told)
        told.append(fraction)
        if not begun and 0 < fraction < 1:
            do()

    return progress, told


def kill() -> None:
    for pid in children():
        os.kill(pid, signal.SIGKILL)


def test_a_killed_qemu_img(large: Path) -> None:
    before = tree(large.parent)
    with pytest.raises(QemuImgError) as failure:
        images.convert(large, large.with_name("new"), compress=True, progress=halfway(kill)[0])
    assert str(failure.value) == f"images.convert({str(large)!r}): qemu-img was killed by SIGKILL"
    assert failure.value.returncode == -signal.SIGKILL
    assert tree(large.parent) == before


def test_a_replaced_target_stays(large: Path) -> None:
    target = large.with_name("target")
    target.write_text("mine")
    before = tree(large.parent)
    with pytest.raises(QemuImgError):
        images.convert(large, target, compress=True, overwrite=True, progress=halfway(kill)[0])
    assert tree(large.parent) == before


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c(large: Path) -> None:
    before = tree(large.parent)
    with pytest.raises(KeyboardInterrupt):
        images.convert(large, large.with_name("new"), compress=True, progress=halfway(interrupt)[0])
    assert tree(large.parent) == before
    assert children() == []


# Ends its own reading by SIGINT, as a terminal does to a whole group, while qemu-img is at work.
INTERRUPTED = """
import os, signal, sys
from pytest_kvm import images

def interrupt(fraction):
    os.killpg(0, signal.SIGINT)

try:
    images.convert("large", "new", compress=True, progress=interrupt)
except KeyboardInterrupt:
    print("interrupted", os.listdir())
"""


def test_ctrl_c_at_a_terminal(large: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=large.parent,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert (done.stdout, done.stderr) == ("interrupted ['large']\n", "")


@pytest.fixture
def limited(tmp_path: Path) -> str:
    """A qemu-img that cannot write more than 32 MiB of a file, and a QEMU beside it."""
    real = shutil.which("qemu-img")
    limit = 'case "$1" in commit | rebase) ulimit -f 65536;; esac'
    program(tmp_path / "bin" / "qemu-img", f'{limit}\nexec {real} "$@"\n')
    return str(program(tmp_path / "bin" / "qemu", "exit 1\n"))


@pytest.mark.parametrize("verb", ["commit", "rebase"])
@pytest.mark.parametrize("how", ["failed", "interrupted"])
def test_overlays_keep_what_they_have(large: Path, limited: str, verb: str, how: str) -> None:
    base = large if verb == "rebase" else images.create(large.with_name("base"), "64M")
    over = images.create(large.with_name("over"), backing=base, backing_format="qcow2")
    write(over, 8, mib=48 if verb == "commit" else 1)
    read, before = content(over), tree(large.parent)
    change = partial(images.commit, empty=False) if verb == "commit" else partial(images.rebase, backing=None)
    if how == "failed":
        with pytest.raises(
            QemuImgError, match=rf"images\.{verb}\(.*over'\): qemu-img refuses: .*File too large$"
        ) as failure:
            change(over, qemu=limited)
        # Without, what a kill leaves is a matter of luck.
        assert "writethrough" in failure.value.command
    else:
        with pytest.raises(KeyboardInterrupt):
            change(over, progress=halfway(interrupt)[0])
    after = tree(large.parent)
    read_only = "over" if verb == "commit" else "large"
    assert after[read_only] == before[read_only]
    assert after.keys() == before.keys()
    assert content(over) == read
    assert images.check(over, repair="all").ok
    assert content(over) == read
    change(over)
    assert content(base if verb == "commit" else over) == read


# Run on a disk of 16 MB, which has a source of 9 MB on it.
FULL = """
import hashlib, json, os, sys
from pytest_kvm import QemuImgError, images
from tests.images.verbs.disks import tree, write
from pathlib import Path

here = Path.cwd()
write(images.create("source", "8M"), 7, mib=8)
images.create("raw", "1M", format="raw")
write(images.create("small", "32M"), 7)
over = images.create(sys.argv[1] + "/larger", backing="small", backing_format="qcow2")
write(over, 8, at=4, mib=24)
before, above = tree(here), tree(Path(sys.argv[1]))
told = []
for call in (
    lambda: images.convert("source", "new", sparse=0, format="raw", options={"preallocation": "falloc"}),
    lambda: images.convert(over, "new", source_format="qcow2"),
    lambda: images.create("new", "32M", options={"preallocation": "full"}),
    lambda: images.create("new", "32M", format="raw", options={"preallocation": "falloc"}),
    lambda: images.resize("source", "+32M", preallocation="full"),
    lambda: images.resize("raw", "+32M", preallocation="falloc"),
    lambda: images.commit(over, format="qcow2"),
):
    try:
        call()
        told.append("nothing failed")
    except QemuImgError as error:
        after = tree(here)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        told.append([str(error), error.nospace, changed, tree(Path(sys.argv[1])) == above])
print(json.dumps(told))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    elsewhere, full = tmp_path / "elsewhere", tmp_path / "full"
    elsewhere.mkdir()
    full.mkdir()
    within = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=16m none "$0" && cd "$0" && exec "$@"', str(full)]
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], check=False).returncode != 0:
        pytest.skip("no private mounts here")
    command = [*within, sys.executable, "-c", FULL, str(elsewhere)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout.splitlines()[-1])
    *others, commit = told
    verbs = ["convert", "convert", "create", "create", "resize", "resize"]
    for verb, (said, nospace, changed, same) in zip(verbs, others, strict=True):
        assert said.startswith(f"images.{verb}('")
        assert "No space left on device: " in said
        assert said.endswith(f"MB are free in {str(full)!r}; make room, or write elsewhere")
        assert (nospace, changed, same) == (True, [], True)
    said, nospace, changed, same = commit
    assert said.startswith(f"images.commit('{elsewhere}/larger'): No space left on device: ")
    # What was committed is in the image below already; the overlay has all of it, too.
    assert (nospace, changed, same) == (True, ["small"], True)


@pytest.fixture
def talkative(tmp_path: Path) -> str:
    """A qemu-img that has more to say than a pipe holds, and a QEMU beside it."""
    said = "yes 'qemu-img: a long complaint' | head -n 20000 >&2; yes '    (1.00/100%)' | head -n 20000; exit 3"
    program(tmp_path / "bin" / "qemu-img", f'case "$*" in *-S*) {said};; esac\nexec {shutil.which("qemu-img")} "$@"\n')
    return str(program(tmp_path / "bin" / "qemu", "exit 1\n"))


def test_much_that_it_says(tmp_path: Path, talkative: str) -> None:
    disk = images.create(tmp_path / "disk", "1M", qemu=talkative)
    with pytest.raises(QemuImgError) as failure:
        images.convert(disk, tmp_path / "new", progress=lambda _: None, qemu=talkative)
    complaint = "a long complaint; a long complaint; a long complaint … and 19997 lines more"
    assert str(failure.value).endswith(f"qemu-img refuses: {complaint}")
    assert failure.value.returncode == 3
    assert len(failure.value.stderr) > 500_000


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    disk = write(images.create(tmp_path / "disk", "8M"), 7, mib=8)
    images.convert(disk, tmp_path / "quiet", progress=True)
    assert capfd.readouterr() == ("", "")
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    images.convert(disk, tmp_path / "shown", progress=True)
    assert "convert disk:   0%|" in terminal.getvalue()
