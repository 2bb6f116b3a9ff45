"""Looks into a guest's kernel, and programs of the host in the guest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvm import VM, CommandError, MachineError, SpecError
from pytest_kvm.plugin.factories import VMFactory


@pytest.fixture(scope="module")
def guest(vm_session_factory: VMFactory) -> VM:
    return vm_session_factory("looked-at")


def test_dmesg(guest: VM) -> None:
    guest.run("echo '<5>said by a test' >/dev/kmsg")
    messages = guest.dmesg()
    assert messages[0].time <= messages[-1].time
    assert any(message.text.startswith("Linux version ") for message in messages)
    assert messages[-1].text == "said by a test"
    assert messages[-1].level == "notice"


def test_sysrq(guest: VM) -> None:
    said = guest.sysrq("m")
    assert said[0].text == "sysrq: Show Memory"
    assert any(message.text.startswith("Mem-Info:") for message in said)
    for key in ("", "ab", "$", "\n"):
        with pytest.raises(SpecError, match=r"expected one letter or digit$"):
            guest.sysrq(key)


@pytest.mark.vm(devices=["vmcoreinfo"])
def test_a_dump_after_a_panic(vm: VM, tmp_path: Path) -> None:
    with vm.expect_panic("sysrq"):
        vm.run("echo c >/proc/sysrq-trigger", check=False)
    path = vm.dump(tmp_path / "vmcore")
    assert path == tmp_path / "vmcore"
    said = subprocess.check_output(["readelf", "-n", str(path)], text=True) if shutil.which("readelf") else ""
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF"
    # What the kernel has told QEMU through the device: where everything is.
    assert b"VMCOREINFO\0" in data[:8192]
    assert b"OSRELEASE=" + vm.kernel.release.encode() in data[:8192]
    assert not said or "VMCOREINFO" in said
    assert [file.name for file in tmp_path.iterdir()] == ["vmcore"]
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"


def test_a_dump_of_one_that_runs(guest: VM, tmp_path: Path) -> None:
    path = guest.dump(tmp_path / "a file, with=all", format="kdump-zlib")
    assert path.read_bytes()[:12] == b"makedumpfile"  # its flattened form, which needs no seeking
    guest.run("true")


def test_a_dump_that_cannot_be(guest: VM, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^vm\.dump\(format='core'\): expected elf, kdump-zlib"):
        guest.dump(tmp_path / "x", format="core")
    with pytest.raises(MachineError, match=r"^VM 'looked-at': its memory is not dumped to /.*No such file or"):
        guest.dump(tmp_path / "none" / "x")
    assert list(tmp_path.iterdir()) == []
    guest.run("true")


def test_a_program_with_its_libraries(guest: VM) -> None:
    program = shutil.which("expr")
    assert program is not None
    assert guest.run_local(program, "6", "*", "7").stdout == "42\n"
    with pytest.raises(CommandError, match="returned status 2"):
        guest.run_local(program, "6", "*", "seven")
    assert guest.run_local(program, "0", check=1).returncode == 1


def test_a_script(guest: VM, tmp_path: Path) -> None:
    script = tmp_path / "a script.sh"
    script.write_text('#!/bin/sh\necho "$WHO: $*"\n')
    script.chmod(0o755)
    assert guest.run_local(script, "a b", "c", env={"WHO": "me"}).stdout == "me: a b c\n"


def test_a_folder(guest: VM, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "data").write_text("content\n")
    run = tmp_path / "tests" / "run.sh"
    run.write_text("#!/bin/sh\ncat data; echo $1\n")
    run.chmod(0o755)
    assert guest.run_local(tmp_path / "tests", "./run.sh", "-v").stdout == "content\n-v\n"
    with pytest.raises(SpecError, match="say what to run in this folder"):
        guest.run_local(tmp_path / "tests")


def test_a_test_program_of_the_host(guest: VM, tmp_path: Path) -> None:
    program = tmp_path / "test"
    program.write_text("#!/bin/sh\necho 'KTAP version 1'\necho 1..1\necho ok 1 $1\n")
    program.chmod(0o755)
    result = guest.run_ktap([*guest.bring(program), "case"], check=False)
    assert [case.name for case in result.cases] == ["case"]
    assert result.good


def test_what_cannot_be_run(guest: VM, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"it cannot be seen which libraries it needs: .*No such file"):
        guest.run_local(tmp_path / "none")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    broken.chmod(0o755)
    with pytest.raises(CommandError):
        guest.run_local(broken)
    plain = tmp_path / "plain"
    plain.write_text("text")
    with pytest.raises(CommandError, match="returned status 126"):
        guest.run_local(plain)


def test_an_interpreter_of_the_host(guest: VM) -> None:
    """A large program with many libraries."""
    done = guest.run_local(Path(sys.executable).resolve(), "-S", "-E", "-c", "print(6 * 7)", check=False, timeout=120)
    # Its library is not there; that it says so means that it was loaded.
    assert done.returncode == 0 or "encodings" in done.stderr
