"""Frames and the lines behind them: real tools on object files made here."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pytest_kvm.kernel.traces.decoding import Decoder
from pytest_kvm.kernel.traces.memory import Memory
from tests.kernel.traces.objects import (
    CORE,
    MODULE,
    OTHER,
    VERSION,
    kernel,
    line,
    make_module,
    make_vmlinux,
    places,
    returns,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("linux")
    make_vmlinux(tree)
    return tree


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_module(tmp_path_factory.mktemp("module"))


def decoder(*folders: Path, tree: Path | None = None, given: tuple[Path, ...] = (), limit: float = 20) -> Decoder:
    return Decoder(lambda: kernel(*folders, tree=tree), {}, given=given, limit=limit)


def frame(file: Path, function: str, offset: int, *, number: int = 0, module: str = "") -> str:
    _, size = places(file, function)[number]
    return f"{function}+{offset:#x}/{size:#x}{module and f' [{module}]'}"


def test_a_call_and_an_instruction(tree: Path) -> None:
    vmlinux = tree / "vmlinux"
    behind = returns(vmlinux, "twice", "note")
    decode = decoder(tree)
    # The call is on its line, and what follows it is on another one.
    assert decode(f" {frame(vmlinux, 'twice', behind)}").text.endswith(f" (kernel/core.c:{line(CORE, 'call')})")
    exact = decode(f"RIP: 0010:{frame(vmlinux, 'twice', behind)}").text
    assert f"kernel/core.c:{line(CORE, 'outer')}" in exact
    # The top of a call trace is what is executed, where it says the same.
    both = decode(f"pc : {frame(vmlinux, 'twice', behind)}\nCall trace:\n {frame(vmlinux, 'twice', behind)}")
    assert both.text.count(f"kernel/core.c:{line(CORE, 'outer')})") == 2


def test_what_is_inlined(tree: Path) -> None:
    vmlinux = tree / "vmlinux"
    _, size = places(vmlinux, "twice")[0]
    text = "\n".join(f"RIP: 0010:{frame(vmlinux, 'twice', offset)}" for offset in range(size))
    inner, outer = line(CORE, "inlined"), line(CORE, "outer")
    groups = [group for group in decoder(tree)(text).lines if len(group) > 1]
    assert groups
    for first, beneath in groups:
        assert first.endswith(f" (inner at kernel/core.c:{inner})")
        assert beneath == f"{' ' * 12}(inlined by) twice at kernel/core.c:{outer}"


def test_functions_of_the_same_name(tree: Path) -> None:
    vmlinux = tree / "vmlinux"
    small, large = (frame(vmlinux, "twin", 1, number=number) for number in (0, 1))
    assert small != large
    first, second = decoder(tree)(f" {small}\n {large}").text.splitlines()
    assert first == f" {small} (kernel/core.c:{line(CORE, 'small')})"
    assert second.startswith(f" {large} (lib/other.c:")
    # Of the same size, too: it can be either.
    same = frame(vmlinux, "same", 1)
    assert same == frame(vmlinux, "same", 1, number=1)
    said = f"(kernel/core.c:{line(CORE, 'one')}, or lib/other.c:{line(OTHER, 'two')})"
    assert decoder(tree)(f" {same}").text == f" {same} {said}"


def test_what_is_not_there(tree: Path) -> None:
    decode = decoder(tree)
    for text in ("", "Call Trace:", " nonsense+0x1/0x20", " nonsense+0x1/0x20 [elsewhere]", "RIP: 0033:0x4ae3f7"):
        assert decode(text).text == text
    # Too far behind its beginning to be in any function that is known.
    assert decode(" twice+0xffffff/0xfffff0").text == " twice+0xffffff/0xfffff0"


@pytest.mark.parametrize("where", ["vmlinux-{}", "boot/vmlinux-{}", "usr/lib/debug/boot/vmlinux-{}"])
@pytest.mark.parametrize("away", ["usr/lib/debug/lib/modules/{}/vmlinux", "lib/modules/{}/build/vmlinux"])
def test_where_the_kernel_is(where: str, away: str, tree: Path, tmp_path: Path) -> None:
    vmlinux = tree / "vmlinux"
    text = f" {frame(vmlinux, 'twice', 1)}"
    for name in (where, away):
        file = tmp_path / name.replace("/", "-") / name.format(kernel().release)
        file.parent.mkdir(parents=True)
        shutil.copy(vmlinux, file)
        folder = tmp_path / name.replace("/", "-")
        assert "(kernel/core.c:" in decoder(folder)(text).text
    assert decoder(tmp_path)(text).text == text


def test_one_that_is_named(tree: Path, tmp_path: Path) -> None:
    vmlinux = tree / "vmlinux"
    text = f" {frame(vmlinux, 'twice', 1)}"
    other = make_vmlinux(tmp_path / "other", version="#8 SMP")
    assert "(kernel/core.c:" in decoder(given=(other, vmlinux))(text).text
    assert decoder(given=(other,))(text).text == (
        f"{text}\n(not decoded: {other} is another build, 9.9.9-tests #8 SMP: not {VERSION})"
    )


def test_another_build(tmp_path: Path) -> None:
    vmlinux = make_vmlinux(tmp_path, version="#8 SMP")
    text = f"RIP: 0010:{frame(vmlinux, 'twice', 1)}\nCode: 90 90 <0f> 0b"
    said = f"(not decoded: {vmlinux} is another build, 9.9.9-tests #8 SMP: not {VERSION})"
    assert decoder(tmp_path)(text).text == f"{text}\n{said}"


def test_no_debug_information(tmp_path: Path) -> None:
    vmlinux = make_vmlinux(tmp_path, debug="-g0")
    text = f"RIP: 0010:{frame(vmlinux, 'twice', 1)}\nCode: 90 90 <0f> 0b"
    assert decoder(tmp_path)(text).text == text
    assert decoder()(text).text == text
    assert Decoder(lambda: None, {})(text).text == text


def test_a_module_that_was_loaded_from_a_file(module: Path) -> None:
    start = places(module, "fault")[0][0]
    assert start == places(module, "faulty_init")[0][0]  # both at the beginning of their sections
    text = (
        f"RIP: 0010:{frame(module, 'fault', 0, module='faulty')}\n {frame(module, 'faulty_init', 1, module='faulty')}"
    )
    decode = Decoder(lambda: None, {"faulty": module})
    first, second = decode(text).text.splitlines()
    assert first.endswith(f" [faulty] (faulty.c:{line(MODULE, 'fault')})")
    assert second.endswith(f" [faulty] (faulty.c:{line(MODULE, 'init')})")
    # Its code is shown, too, when nothing is known of the kernel itself.
    assert decode(f"{text}\nCode: 90 90 <0f> 0b").text.endswith("=> 0f 0b                          ud2")


def _gz(data: bytes) -> bytes:
    return gzip.compress(data)


def _zst(data: bytes) -> bytes:
    return zstandard.compress(data)


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".xz", lzma.compress), (".gz", _gz), (".zst", _zst)],
    ids=["ko", "xz", "gz", "zst"],
)
@pytest.mark.parametrize("place", ["lib/modules/{}/extra", "usr/lib/debug/lib/modules/{}/kernel/drivers"])
def test_modules_of_a_kernel(  # noqa: PLR0917 - fixtures
    ending: str, pack: Callable[[bytes], bytes], place: str, module: Path, tree: Path, tmp_path: Path
) -> None:
    file = tmp_path / place.format(kernel().release) / f"faulty.ko{ending}"
    file.parent.mkdir(parents=True)
    file.write_bytes(pack(module.read_bytes()))
    shutil.copy(tree / "vmlinux", tmp_path)
    text = f" {frame(module, 'fault', 1, module='faulty')}"
    assert f"faulty.c:{line(MODULE, 'fault')})" in decoder(tmp_path, given=(tmp_path / "vmlinux",))(text).text


def test_a_module_whose_debug_information_is_apart(module: Path, tmp_path: Path) -> None:
    """As in packages: the module is stripped, and the other file has all but its code."""
    folders = [tmp_path / name / kernel().release for name in ("lib/modules", "usr/lib/debug/lib/modules")]
    for folder, options in zip(folders, (["--strip-debug"], ["--only-keep-debug"]), strict=True):
        folder.mkdir(parents=True)
        name = "faulty.ko" if options == ["--strip-debug"] else "faulty.ko.debug"
        subprocess.run(["objcopy", *options, module, folder / name], check=True)
    text = f" {frame(module, 'fault', 1, module='faulty')}"
    assert f"faulty.c:{line(MODULE, 'fault')})" in decoder(tmp_path)(text).text


def test_a_module_of_another_build(module: Path) -> None:
    decode = Decoder(lambda: None, {"faulty": module})
    why = f"(not decoded: {module} is another build than the module in the guest)"
    text = " fault+0x1/0x123 [faulty]"
    assert decode(text).text == f"{text}\n{why}"
    text = f" {frame(module, 'fault', 1, module='faulty')[:-1]} {'ab' * 20}]"
    assert decode(text).text == f"{text}\n{why}"
    notes = subprocess.run(["readelf", "-n", module], check=True, capture_output=True, text=True).stdout
    right = notes.partition("Build ID: ")[2].split()[0]
    assert "(faulty.c:" in decode(text.replace("ab" * 20, right)).text


def test_modules_of_a_tree(module: Path, tmp_path: Path) -> None:
    make_vmlinux(tmp_path)
    (tmp_path / "drivers").mkdir()
    shutil.copy(module, tmp_path / "drivers")
    text = f" {frame(module, 'fault', 1, module='faulty')}"
    assert f"faulty.c:{line(MODULE, 'fault')})" in decoder(tmp_path, tree=tmp_path)(text).text


# What is wrong with the tools makes nothing worse.


@pytest.fixture
def report(tree: Path) -> str:
    return f"RIP: 0010:{frame(tree / 'vmlinux', 'twice', 1)}\nCode: 90 90 <0f> 0b"


def test_no_tools(tree: Path, report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert decoder(tree)(report).text == f"{report}\n(not decoded: objdump is not installed; install binutils)"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'cannot do this' >&2; exit 3", r"addr2line --exe={} ended with status 3: cannot do this"),
        ("kill -SEGV $$", r"addr2line --exe={} ended with signal 11"),
        ("exec sleep 60", r"addr2line --exe={} did not end within 1 s"),
    ],
    ids=["fails", "crashes", "hangs"],
)
def test_a_broken_tool(  # noqa: PLR0917 - fixtures
    script: str, why: str, tree: Path, report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "addr2line"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    began = time.monotonic()
    assert decoder(tree, limit=1)(report).text == f"{report}\n(not decoded: {why.format(tree / 'vmlinux')})"
    assert time.monotonic() - began < 20


def test_a_tool_that_hangs_is_not_tried_again(
    tree: Path, report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "addr2line"
    tool.write_text(f"#!/bin/sh\necho >>{tmp_path}/runs; exec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    memory = Memory()
    for _ in range(3):  # as of the machines of several tests
        decode = Decoder(lambda: kernel(tree), {}, memory=memory, limit=1)
        assert "addr2line" in decode(report).notes[0]
    assert (tmp_path / "runs").read_text() == "\n"


def test_the_same_report_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(tree / "vmlinux", tmp_path / "vmlinux")
    decode = decoder(tmp_path)
    text = f" {frame(tree / 'vmlinux', 'twice', 1)}"
    first = decode(text).text
    assert "(kernel/core.c:" in first
    with monkeypatch.context() as patch:  # no tool is needed for it
        patch.setenv("PATH", "")
        assert decode(text).text == first
    # But a kernel that was built anew is another one.
    make_vmlinux(tmp_path, version="#8 SMP")
    assert "is another build" in decode(text).text


def test_a_tool_that_talks_nonsense(tree: Path, report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "0x1\n0x2", "0x1\nf\n", "\\xff\\xfe:12", "0x1\nf\n??:0\n", "0x1\nf\nx:y:12 (\n"):
        tool = tmp_path / "addr2line"
        tool.write_text(f"#!/bin/sh\ncat >/dev/null; printf '{text}'\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert decoder(tree)(report).text.startswith(report)


def test_damaged_files(tree: Path, report: str, tmp_path: Path) -> None:
    whole = (tree / "vmlinux").read_bytes()
    for content in (
        b"",
        b"\x7fELF",
        whole[:3000],
        whole[: len(whole) // 2],
        b"\x7fELF\x02\x01" + bytes(60),
        bytes(4096),
    ):
        (tmp_path / "vmlinux").write_bytes(content)
        assert decoder(tmp_path)(report).text.startswith(report.partition("\n")[0])
    (tmp_path / "vmlinux").unlink()
    (tmp_path / "vmlinux").mkdir()
    assert decoder(tmp_path)(report).text == report


def test_whatever_goes_wrong(report: str) -> None:
    def broken() -> None:
        raise RuntimeError("no kernel")

    assert Decoder(broken, {})(report).text == f"{report}\n(not decoded: RuntimeError: no kernel)"


def test_hostile_reports(tree: Path) -> None:
    """A guest may print anything, and a report is judged at once."""
    decode = decoder(tree)
    for text in (
        "a" * 60000,
        "a." * 30000 + "+0x1/0x2",
        "IP: " * 15000 + "+ f+0x1/0x2",
        "at x:1 " * 8000 + "f+0x1/0x2",
        "f+0x1/0x2 " * 6000,
        "\n".join(f"f{number}+0x1/0x2 [m{number}]" for number in range(2000)),
        "f+0x" + "f" * 60000 + "/0x2",
        f"twice+0x{'f' * 40}/0x{'f' * 40}",
        f"RIP: 0010:twice+0x1/0x2\nCode: {'90 ' * 20000}<0f> 0b",
    ):
        began = time.monotonic()
        assert decode(text).notes == []
        assert time.monotonic() - began < 5


def test_reports_of_all_kinds(tree: Path) -> None:
    """Of other kernels: nothing of them is known here, and nothing is in the way of reading them."""
    samples = sorted((Path(__file__).parents[2] / "guest" / "recognisers" / "samples").glob("*.txt"))
    assert len(samples) > 50
    for sample in samples:
        text = sample.read_text(encoding="utf-8").strip("\n")
        found = decoder(tree)(text)
        assert found.notes == []
        # (kernel_init is a function of every kernel.)
        assert [group[0].removesuffix(" (init/main.c:5)") for group in found.lines] == text.splitlines()
