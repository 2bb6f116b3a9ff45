"""Reports of a guest's kernel with files and lines: of a module of one's own, and of the kernel itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.guests.kernels import FAULTY, make_module
from tests.outcomes import Outcomes, run_session

TESTS = """
import pytest

def provoke(vm, what):
    vm.modprobe({module!r})
    vm.run(f"echo {{what}} >/sys/module/faulty/parameters/what", check=False)

def test_null(vm):
    provoke(vm, "null")

def test_warning(vm):
    provoke(vm, "warning")

def test_panic(vm):
    provoke(vm, "panic")
"""


def line_of(comment: str) -> int:
    """Return the number of the line with this comment."""
    return 1 + next(number for number, line in enumerate(FAULTY.read_text().splitlines()) if f"/* {comment} */" in line)


@pytest.fixture(scope="module")
def module(installed_kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_module(installed_kernel, tmp_path_factory.mktemp("module"), FAULTY)


@pytest.fixture
def session(pytester: pytest.Pytester, installed_kernel: Path, module: Path) -> Outcomes:
    return run_session(pytester, TESTS.format(module=str(module)), f"--kvm-kernel={installed_kernel}")


def test_a_modules_frames(session: Outcomes, pytester: pytest.Pytester) -> None:
    said = session.text("test_null")
    # The instruction itself, in the function that is inlined, and beneath it the one that it is inlined into.
    store = rf"RIP: 0010:null\S*\+0x\S+ \[faulty\] \(poke at faulty\.c:{line_of('the store')}\)\n"
    assert re.search(store + rf" +\(inlined by\) null at faulty\.c:{line_of('the inlined call')}\n", said)
    assert re.search(rf"\] +set\S*\+0x\S+ \[faulty\] \(faulty\.c:{line_of('the call')}\)\n", said)
    # Nothing is known of the kernel's own.
    assert re.search(r"\] +ksys_write\+0x\S+$", said, re.MULTILINE)
    assert "not decoded" not in said
    (reports,) = pytester.path.glob("test-results/*test_null*/vm/reports.txt")
    text = reports.read_text()
    assert text.startswith("BUG: unable to handle kernel NULL pointer dereference in null\n\n[")
    assert re.search(store, text)

    # In a section of its own; its instructions, and the one that trapped.
    said = session.text("test_warning")
    assert re.search(rf"RIP: 0010:warn\S*\+0x\S+ \[faulty\] \(faulty\.c:{line_of('the warning')}\)\n", said)
    assert re.search(r"Code: .* <0f> 0b .*\n(?: {16}.*\n)+ {16} *=> 0f 0b +ud2\n {16}", said)

    # Behind a call that does not return there is another function, or nothing.
    said = session.text("test_panic")
    assert "GuestPanic: VM 'vm': the guest's kernel panicked: asked for" in said
    assert re.search(rf"\] +fail\S*\+0x\S+ \[faulty\] \(faulty\.c:{line_of('does not return')}\)\n", said)
    assert re.search(rf"\] +set\S*\+0x\S+ \[faulty\] \(faulty\.c:{line_of('the last call')}\)\n", said)
    (told,) = (told for told in session.tests["test_panic"] if told.when == "call")
    assert "console" not in "\n".join(text for _, text in told.sections)  # all of it is shown already


def test_without_debug_information(pytester: pytest.Pytester, installed_kernel: Path, module: Path) -> None:
    stripped = pytester.path / "faulty.ko"
    subprocess.run(["objcopy", "--strip-debug", module, stripped], check=True)
    session = run_session(
        pytester, TESTS.format(module=str(stripped)), f"--kvm-kernel={installed_kernel}", "-k", "null"
    )
    said = session.text("test_null")
    assert re.search(r"RIP: 0010:null\S*\+0x\S+ \[faulty\]\n", said)
    assert "=>" not in said
    assert "not decoded" not in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such file"),
        (b"bzImage", "this is no vmlinux with debug information (CONFIG_DEBUG_INFO)"),
        (b"\x7fELF\x02\x01" + bytes(100), "this is no vmlinux with debug information (CONFIG_DEBUG_INFO)"),
    ],
)
def test_an_option_that_names_no_vmlinux(content: bytes | None, why: str, pytester: pytest.Pytester) -> None:
    if content is not None:
        (pytester.path / "vmlinux").write_bytes(content)
    result = pytester.runpytest("--kvm-vmlinux=vmlinux")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(f"ERROR: --kvm-vmlinux=vmlinux: *{why}*")
