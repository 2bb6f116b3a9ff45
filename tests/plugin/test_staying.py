"""Staying with a failure, on real machines: kept running, alive at pdb's prompt, saved to be reopened."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

TIMEOUT = 120  # the host may be busy
PROMPT = "Ctrl-C ends the session: "
PDB = r"\(Pdb\) "

FAILING = """
    import pytest

    def test_fails(vm):
        vm.run("echo MARK >/tmp/marker")
        assert vm.run("echo three").stdout == "four\\n"

    def test_passes(vm):
        assert vm.run("ls /tmp").stdout == ""

    @pytest.mark.xfail
    def test_fails_as_expected(vm):
        vm.run("false")
"""

BOOTING = """
    import pytest

    # The kernel has no first program, which is a panic; without a reboot after it, nothing more happens.
    @pytest.mark.vm(append="rdinit=/nothing panic=0", timeout=300)
    def test_boots(vm):
        pass
"""


def reopened(folder: Path, command: str) -> str:
    arguments = [sys.executable, "-m", "pytest_kvm", "reopen", str(folder), "--run", command]
    return subprocess.check_output(arguments, text=True, timeout=TIMEOUT)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Pytester]:
    """A session with temporary files of its own, so that it shows what is left of them."""
    # Its machines wait for nobody's.
    budget = "--kvm-memory-budget=off --kvm-max-vcpus=off"
    pytester.makeini(f"[pytest]\naddopts = -p no:hypothesispytest -p no:cacheprovider --kvm-strict {budget}\n")
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("tmp")))
    monkeypatch.setenv("COLUMNS", "250")
    yield pytester
    for name in ("test-results", "moved"):  # pytest keeps its folders for a while, and these are large
        shutil.rmtree(pytester.path / name, ignore_errors=True)


def left(inner: pytest.Pytester) -> list[Path]:
    return list((inner.path / "tmp").glob("pytest-kvm-*"))


# --kvm-save-state


@pytest.mark.parametrize("where", [(), pytest.param(("-n", "1"), marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_saving(inner: pytest.Pytester, where: tuple[str, ...]) -> None:
    inner.makepyfile(test_it=FAILING)
    result = inner.runpytest_subprocess("--kvm-save-state", *where)
    result.assert_outcomes(failed=1, passed=1, xfailed=1)
    result.stdout.fnmatch_lines(
        ["E*AssertionError: assert 'three?n' == 'four?n'", "*- kvm state -*", "VM 'vm' was saved: * reopen */vm"]
    )
    (folder,) = inner.path.glob("test-results/*/vm")
    assert "test_fails" in folder.parent.name
    assert left(inner) == []
    moved = folder.rename(inner.path / "moved")
    assert reopened(moved, "cat /tmp/marker") == "MARK\n"


# The machine itself, or what becomes its template.
@pytest.mark.parametrize("start", [pytest.param("boot", marks=pytest.mark.slow), "clone"])
def test_saving_a_machine_that_does_not_boot(inner: pytest.Pytester, start: str) -> None:
    inner.makepyfile(test_it=BOOTING)
    result = inner.runpytest_subprocess("--kvm-save-state", f"--kvm-start={start}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*GuestPanic: VM 'vm': the guest's kernel panicked: *", "VM 'vm' was saved: * reopen */vm"]
    )
    assert left(inner) == []
    (manifest,) = inner.path.glob("test-results/*/vm/state/manifest.json")
    assert '"status": "running"' in manifest.read_text()


def test_saving_session_machines(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def shared(vm_session_factory):
            return vm_session_factory("shared")

        @pytest.fixture(scope="session")
        def others(vm_session_factory):
            return vm_session_factory("others")

        def test_prepares(shared, others):
            shared.run("echo MARK >/tmp/marker")

        def test_fails(shared, vm_factory):
            vm_factory("own", image=None)
            vm_factory("off", image=None, autostart=False)
            assert False

        def test_goes_on(shared):
            assert shared.run("cat /tmp/marker").stdout == "MARK\\n"
        """
    )
    result = inner.runpytest_subprocess("--kvm-save-state")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines_random(
        [
            "VM 'own' was saved: *",
            "VM 'off' could not be saved: VM 'off' was never started: there is nothing to save",
            "VM 'shared' was saved: *",
        ]
    )
    assert sorted(path.parent.name for path in inner.path.glob("test-results/*/*/state")) == ["own", "shared"]
    (folder,) = inner.path.glob("test-results/*/shared")
    assert reopened(folder, "cat /tmp/marker") == "MARK\n"


def test_saving_what_cannot_be_written(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it=FAILING)
    (inner.path / "test-results").write_text("a file")
    result = inner.runpytest_subprocess("--kvm-save-state", "-k", "test_fails and not expected")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: assert 'three?n' == 'four?n'",
            "VM 'vm' could not be saved: *Not a directory: '*/test-results/*'",
        ]
    )
    assert left(inner) == []


# --kvm-keep


def spawn(inner: pytest.Pytester, *arguments: str) -> pexpect.spawn[str]:
    command = ["-m", "pytest", "--color=no", *arguments]
    return pexpect.spawn(
        sys.executable, command, cwd=str(inner.path), encoding="utf-8", timeout=TIMEOUT, dimensions=(40, 250)
    )


def way(session: pexpect.spawn[str], label: str) -> str:
    """Return how to attach, as it was printed last."""
    found: list[str] = re.findall(rf"^  {label} +(.*?)(?:  #.*)?\r$", before(session), re.MULTILINE)
    return found[-1]


def shell(command: str) -> str:
    return subprocess.check_output(["sh", "-c", command], text=True, timeout=TIMEOUT)


def ended(session: pexpect.spawn[str]) -> int | None:
    session.expect(pexpect.EOF)
    session.close()
    return session.exitstatus


def before(session: pexpect.spawn[str]) -> str:
    assert isinstance(session.before, str)
    return session.before


def test_keeping(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it=FAILING)
    session = spawn(inner, "--kvm-keep")
    session.expect_exact(PROMPT)
    assert "AssertionError: assert 'three\\n' == 'four\\n'" in before(session)
    assert shell(f"{way(session, 'SSH')} cat /tmp/marker") == "MARK\n"
    with pexpect.spawn(way(session, "QMP"), encoding="utf-8", timeout=TIMEOUT) as monitor:
        monitor.expect_exact("(QEMU) ")
        monitor.sendline("query-status")
        monitor.expect_exact('"status": "running"')
        monitor.expect_exact("(QEMU) ")  # before it, the terminal would lose the end of file
        monitor.sendeof()
        monitor.expect(pexpect.EOF)
    with pexpect.spawn(way(session, "console"), encoding="utf-8", timeout=TIMEOUT) as console:
        console.expect_exact("Ctrl-] leaves it.")
        console.send("\r")
        console.expect_exact("login: ")
        console.send("\x1d")
        console.expect(pexpect.EOF)
    session.send("\r")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed, 1 xfailed" in before(session)
    assert left(inner) == []


@pytest.mark.parametrize("option", ["--kvm-keep", "--pdb"])
def test_what_happens_meanwhile_is_no_verdict(inner: pytest.Pytester, option: str) -> None:
    inner.makepyfile("def test_fails(vm):\n    assert False\n")
    session = spawn(inner, option)
    session.expect_exact(PROMPT if option == "--kvm-keep" else "(Pdb) ")
    # The connection dies with the guest.
    shell(f"{way(session, 'SSH')} -o ServerAliveInterval=1 'echo c >/proc/sysrq-trigger' || true")
    session.send("\r" if option == "--kvm-keep" else "continue\r")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED
    assert "GuestPanic" not in before(session)
    assert re.search(r"= 1 failed in ", before(session))


def test_ctrl_c_while_kept(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        @pytest.mark.vm("a", image=None)
        @pytest.mark.vm("b", image=None)
        def test_fails(vms):
            with open("pids", "w") as file:
                print(*(vm.pid for vm in vms.values()), file=file)
            assert False

        def test_next(vm):
            pass
        """
    )
    session = spawn(inner, "--kvm-keep")
    session.expect_exact(PROMPT)
    assert re.findall(r"VM '(.)' is running, in /", before(session)) == ["a", "b"]
    machines = [os.pidfd_open(int(pid)) for pid in (inner.path / "pids").read_text().split()]
    assert len(left(inner)) == 2
    session.sendintr()
    assert ended(session) == pytest.ExitCode.INTERRUPTED
    assert [select.select([machine], [], [], 0)[0] for machine in machines] == [[machine] for machine in machines]
    assert left(inner) == []
    for machine in machines:
        os.close(machine)


def test_keeping_a_machine_that_does_not_boot(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it=BOOTING)
    session = spawn(inner, "--kvm-keep", "--kvm-save-state")
    session.expect_exact(PROMPT)
    assert "VM 'vm' was saved: " in before(session)
    with pexpect.spawn(way(session, "console"), encoding="utf-8", timeout=TIMEOUT) as console:
        console.expect_exact("Kernel panic - not syncing")
        console.send("\x1d")
        console.expect(pexpect.EOF)
    session.send("\r")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED
    assert left(inner) == []


def test_nothing_to_keep(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import pytest

        def test_without_a_machine():
            assert False

        @pytest.mark.vm(image=None)
        def test_off(vm):
            vm.kill()
            assert False
        """
    )
    session = spawn(inner, "--kvm-keep")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED
    assert "2 failed" in before(session)


NOBODY = (
    "--kvm-keep waits for somebody to press Enter, and there is nobody: {}. --kvm-save-state keeps machines for later"
)


def test_nobody_to_press_enter(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it="def test_it(): pass")
    result = inner.runpytest_subprocess("--kvm-keep")  # its standard input is a closed pipe
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{NOBODY.format('its standard input is no terminal')}"])
    session = spawn(inner, "--kvm-keep", "-n", "1")
    session.expect_exact(NOBODY.format("the tests run in several processes; leave out -n"))
    assert ended(session) == pytest.ExitCode.USAGE_ERROR


def test_the_ini_file_keeps_where_somebody_is(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it="import pytest\n\n@pytest.mark.vm(image=None)\ndef test_it(vm): assert False")
    inner.makeini("[pytest]\naddopts = -p no:hypothesispytest\nkvm_keep = true\n")
    for arguments in ((), ("-n", "1")):
        inner.runpytest_subprocess(*arguments).assert_outcomes(failed=1)
    session = spawn(inner)
    session.expect_exact(PROMPT)
    session.send("\r")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED


# --pdb


def test_pdb(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        def test_fails(vm):
            vm.run("echo MARK >/tmp/marker")
            assert vm.run("echo three").stdout == "four\\n"

        def test_next(vm, request):
            assert vm.started.kind == "clone"
            assert vm.run("ls /tmp").stdout == ""
        """
    )
    session = spawn(inner, "--pdb")
    session.expect(PDB)
    assert shell(f"{way(session, 'SSH')} cat /tmp/marker") == "MARK\n"
    for line, answer in {
        "vm.run('cat /tmp/marker').stdout": r"'MARK\n'",
        "vm.console.login()": "",
        "vm.console.run('cat /tmp/marker').stdout": r"'MARK\n'",
        "vm.ssh.run('cat /tmp/marker').stdout": r"'MARK\n'",
        "vm.qmp.execute('query-status')['status']": "'running'",
        "vm.snapshot()": "<Snapshot of VM 'vm'>",
        "vm.reboot()": "",
        "vm.run('ls /tmp').stdout": "''",
    }.items():
        session.sendline(line)
        session.expect_exact(line)
        session.expect(PDB)
        assert before(session).strip() == answer
    session.sendline("continue")
    assert ended(session) == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed" in before(session)
    assert left(inner) == []


def test_pdb_and_a_machine_that_does_not_boot(inner: pytest.Pytester) -> None:
    inner.makepyfile(test_it=BOOTING)
    session = spawn(inner, "--pdb")
    session.expect(PDB)
    with pexpect.spawn(way(session, "console"), encoding="utf-8", timeout=TIMEOUT) as console:
        console.expect_exact("Kernel panic - not syncing")
        console.send("\x1d")
        console.expect(pexpect.EOF)
    session.sendline("quit")
    assert ended(session) == pytest.ExitCode.INTERRUPTED
    assert left(inner) == []


def test_trace(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(vm):\n    vm.run('echo MARK >/tmp/marker')\n    assert vm.running\n")
    session = spawn(inner, "--trace")
    session.expect(PDB)
    session.sendline("next")
    session.expect(PDB)
    session.sendline("vm.run('cat /tmp/marker').stdout")
    session.expect_exact(r"'MARK\n'")
    session.expect(PDB)
    session.sendline("continue")
    assert ended(session) == pytest.ExitCode.OK
    assert left(inner) == []


def test_a_start_that_fails_looks_the_same_to_the_test(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import re
        import pytest
        from pytest_kvm import BootTimeout, QEMUExited

        @pytest.fixture
        def late(vm_factory):
            yield
            with pytest.raises(BootTimeout):
                vm_factory("late", autostart=True)

        @pytest.mark.vm(ready=re.compile("never"), start="boot", timeout=1, autostart=False)
        def test_it(vm, vm_factory, late):
            for _ in range(2):
                with pytest.raises(BootTimeout):
                    vm.start()
                assert not vm.running
                with pytest.raises(QEMUExited, match="is off"):
                    vm.run("true")
            with pytest.raises(BootTimeout):
                vm_factory("other", autostart=True)
        """
    )
    inner.runpytest_subprocess("--kvm-save-state").assert_outcomes(passed=1)
    assert left(inner) == []
    assert not (inner.path / "test-results").exists()
