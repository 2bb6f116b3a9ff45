"""From a kernel's counters to a tracefile: with counters of a program, which are the same."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from pytest_kvm import HostError
from pytest_kvm.images.kernels.source import Kernel
from pytest_kvm.kernel.coverage.gcov import build_tree, coverage_of, find_gcov, notes_of
from pytest_kvm.kernel.coverage.parts import Part, Parts
from pytest_kvm.kernel.coverage.tracefile import Source, lcov_names, write
from tests.kernel.counted import build, counters


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built") / "linux")


def test_counts_of_lines_and_functions(tree: Path) -> None:
    found = coverage_of(counters(tree, "e", "e", "o"), tree)
    assert set(found) == {str(tree / name) for name in ("main.c", "unused.c", "twice.h")}
    main = found[str(tree / "main.c")]
    assert main.functions == {"even": (2, 2), "odd": (3, 1), "main": (7, 3)}
    assert main.lines == {2: 2, 3: 1, 5: 1, 7: 3}
    assert found[str(tree / "twice.h")].lines == {1: 1}
    assert not found[str(tree / "unused.c")].used


def test_a_tree_that_was_moved(tmp_path: Path) -> None:
    archive = counters(build(tmp_path / "here" / "linux"), "e")
    there = (tmp_path / "here").rename(tmp_path / "there") / "linux"
    assert set(coverage_of(archive, there)) == {str(there / name) for name in ("main.c", "unused.c", "twice.h")}
    with pytest.raises(HostError, match=r"\(\.gcno\) are not there: the kernel's build tree is not known$"):
        coverage_of(archive, None)
    (tmp_path / "other").mkdir()
    with pytest.raises(HostError, match=r"\(\.gcno\) are not there: not in /.*/other$"):
        coverage_of(archive, tmp_path / "other")


def test_a_tree_that_was_built_anew(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    archive = counters(tree, "e")
    (tree / "main.c").write_text("int first;\n" + (tree / "main.c").read_text())
    (tree / "twice.h").write_text("static int twice(int x) { return x ? 2 * x : 0; }\n")
    for notes in tree.glob("*.gcno"):
        notes.unlink()
    again = build(tmp_path / "new" / "linux")
    for notes in again.glob("*.gcno"):
        (tree / notes.name).write_bytes(notes.read_bytes())
    with pytest.raises(HostError, match=r"^the build tree is not the one of this kernel: it was compiled anew since$"):
        coverage_of(archive, tree)


def test_where_notes_are(tmp_path: Path) -> None:
    (tmp_path / "ipc").mkdir()
    (tmp_path / "ipc" / "msg.gcno").touch()
    assert notes_of(PurePosixPath("/build/linux/ipc/msg.gcda"), tmp_path) == tmp_path / "ipc" / "msg.gcno"
    assert notes_of(PurePosixPath(tmp_path / "ipc" / "msg.gcda"), None) == tmp_path / "ipc" / "msg.gcno"
    assert notes_of(PurePosixPath(tmp_path / "ipc" / "msg.gcda"), tmp_path / "ipc") is not None
    assert notes_of(PurePosixPath("/build/linux/ipc/sem.gcda"), tmp_path) is None
    assert notes_of(PurePosixPath("/build/linux/ipc/sem.gcda"), None) is None


def test_the_tree_of_a_kernel(tmp_path: Path) -> None:
    image = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    assert build_tree(Kernel(image)) is None
    assert build_tree(None) is None
    (tmp_path / "include" / "config").mkdir(parents=True)
    (tmp_path / "include" / "config" / "kernel.release").write_text("6.1\n")
    assert build_tree(Kernel(image)) == tmp_path
    assert build_tree(Kernel(tmp_path / "vmlinux")) == tmp_path


def test_a_compiler_whose_gcov_is_not_here() -> None:
    with pytest.raises(
        HostError, match=r"^gcov of GCC 99, which compiled the kernel, is not installed \(package gcc-99"
    ):
        find_gcov(99)


def test_a_tracefile() -> None:
    used = Source({1: 2, 3: 0}, {"f": (1, 2), "g": (3, 0)})
    unused = Source({5: 0}, {"h": (5, 0)})
    text = write({"t.py::test[b]": {"/s/a.c": used, "/s/b.c": unused}, "t.py::test[a]": {"/s/b.c": unused}})
    assert text.splitlines() == [
        *("TN:t_py__test_b_", "SF:/s/a.c", "FN:1,f", "FN:3,g", "FNDA:2,f", "FNDA:0,g", "FNF:2", "FNH:1"),
        *("DA:1,2", "DA:3,0", "LF:2", "LH:1", "end_of_record"),
        *("TN:", "SF:/s/b.c", "FN:5,h", "FNDA:0,h", "FNF:1", "FNH:0", "DA:5,0", "LF:1", "LH:0", "end_of_record"),
    ]


def test_names_are_distinct() -> None:
    assert lcov_names(["t[a-b]", "t[a_b]", "t[é]"]) == {"t[a-b]": "t_a_b_", "t[a_b]": "t_a_b__2", "t[é]": "t___"}


def test_parts_become_one_file(tree: Path, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "new" / "coverage.info")
    parts.begin()
    parts.save(Part("one", counters(tree, "e"), str(tree)))
    parts.save(Part("one", counters(tree, "e", "e"), str(tree)))  # of a second machine, or before a reboot
    parts.save(Part("two", counters(tree, "o"), str(tree)))
    parts.save(Part("three", reason="no such option"))
    parts.save(Part("four", reason="no such option"))
    parts.save(Part("four", reason="no such option"))
    gone = build(tmp_path / "gone")
    parts.save(Part("five", counters(gone, "o"), str(tmp_path)))
    shutil.rmtree(gone)
    assert sorted(parts.merge()) == [
        f"coverage of 2 tests is in {tmp_path}/new/coverage.info",
        f"no coverage of 1 test: the notes of the compiler (.gcno) are not there: not in {tmp_path}",
        "no coverage of 2 tests: no such option",
    ]
    records = parts.tracefile.read_text().split("end_of_record\n")
    main = {record.split("\n")[0]: record for record in records if f"SF:{tree}/main.c\n" in record}
    assert set(main) == {"TN:one", "TN:two"}
    assert "FNDA:3,even\nFNDA:0,odd\n" in main["TN:one"]
    assert "FNDA:0,even\nFNDA:1,odd\n" in main["TN:two"]
    assert [record.split("\n")[0] for record in records if "/unused.c\n" in record] == ["TN:"]
    parts.remove()
    assert [path.name for path in parts.tracefile.parent.iterdir()] == ["coverage.info"]


def test_nothing_to_merge(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "coverage.info")
    parts.begin()
    parts.save(Part("left by a session that was killed", reason="it was"))
    parts.begin()
    assert parts.merge() == ["no coverage: no test had a machine"]
    assert not parts.tracefile.exists()


def test_an_archive_is_what_the_guest_sends(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(counters(tree, "e"))) as archive:
        assert f".{tree}/main.gcda" in archive.getnames()
