"""What a session keeps of its machines, and what its reports tell; with real machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., pytest.RunResult]

# Machines with nothing in them: up in no time.
EMPTY = """
import re
import pytest
pytestmark = pytest.mark.vm(image=None)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a session with a test file, and sees to it that nothing is left of its machines but what is kept."""
    temporary = pytester.mkdir("tmp")
    monkeypatch.setenv("COLUMNS", "200")

    def run(test: str, *options: str) -> pytest.RunResult:
        if test:
            pytester.makepyfile(test_it=test)
        monkeypatch.setenv("TMPDIR", str(temporary))
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kvm-strict", *options, timeout=300)
        monkeypatch.delenv("TMPDIR")
        assert list(temporary.glob("pytest-kvm-*")) == []
        return result

    return run


def results(pytester: pytest.Pytester, folder: str = "test-results") -> dict[str, dict[str, list[str]]]:
    """Return the names of the files that are kept, by test and machine."""
    found: dict[str, dict[str, list[str]]] = {}
    for mark in sorted((pytester.path / folder).glob("*/test.json")):
        test = json.loads(mark.read_text())["test"]
        machines = sorted(path for path in mark.parent.iterdir() if path.is_dir())
        found[test] = {path.name: sorted(file.name for file in path.iterdir()) for path in machines}
    return found


def only(pytester: pytest.Pytester, machine: str = "vm") -> Path:
    """Return the folder of the only machine."""
    (folder,) = (pytester.path / "test-results").glob(f"*/{machine}")
    return folder


def commands(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "commands.jsonl").read_text().splitlines()]


def properties(pytester: pytest.Pytester) -> dict[str | None, str | None]:
    """Return the folders that are named in JUnit's XML, by the test."""
    found = {}
    for case in ET.parse(pytester.path / "report.xml").getroot().findall(".//testcase"):
        for each in case.findall("properties/property[@name='kvm_artifacts']"):
            found[case.get("name")] = each.get("value")
    return found


def test_nothing_of_a_test_that_passes(pytester: pytest.Pytester, run: Run) -> None:
    test = f"{EMPTY}\nimport os\ndef test_it(vm): assert not os.path.exists('fail')\n"
    run(test).assert_outcomes(passed=1)
    assert not (pytester.path / "test-results").exists()
    # What an earlier run left is of an earlier run.
    (pytester.path / "fail").touch()
    run(test).assert_outcomes(failed=1)
    (pytester.path / "fail").unlink()
    assert list(results(pytester)) == ["test_it.py::test_it"]
    (pytester.path / "test-results" / "mine").touch()
    run(test).assert_outcomes(passed=1)
    assert [path.name for path in (pytester.path / "test-results").iterdir()] == ["mine"]
    (pytester.path / "test-results" / "mine").unlink()
    run(test).assert_outcomes(passed=1)
    assert not (pytester.path / "test-results").exists()


def test_a_failure_in_the_call(pytester: pytest.Pytester, run: Run) -> None:
    result = run("""
    def test_it(vm):
        vm.run("echo 'on the \\x1b[31mconsole' >/dev/console")
        vm.run("exit 3")
    """)
    result.assert_outcomes(failed=1)
    place = os.path.relpath(only(pytester), pytester.path)
    result.stdout.fnmatch_lines(
        [
            "E *CommandError: *returned status 3*",
            "*- VM 'vm' (call) -*",
            "console is at:",
            "tiny login: on the console",
            "last commands:",
            "  ??:??:?? * s  status 3   (shell, as root) exit 3",
            f"everything: {place}",
        ]
    )
    assert "\x1b" not in result.stdout.str()
    assert results(pytester) == {
        "test_it.py::test_it": {
            "vm": ["command.txt", "commands.jsonl", "console.log", "qemu.log", "qmp.jsonl", "spec.json"]
        }
    }
    assert b"\x1b[31mconsole" in (only(pytester) / "console.log").read_bytes()
    # To its end, which came after the report.
    assert '"host-qmp-quit"' in (only(pytester) / "qmp.jsonl").read_text()
    assert [record["status"] for record in commands(only(pytester))] == [0, 3]


@pytest.mark.parametrize(
    ("mark", "error", "files"),
    [
        (
            "args=['-nonsense']",
            "LaunchError",
            ["command.txt", "console.log", "firmware.log", "qemu.log", "spec.json"],
        ),
        (
            "devices=['VGA'], ready=re.compile('never'), timeout=1, args=['-S']",
            "BootTimeout",
            ["command.txt", "console.log", "firmware.log", "qemu.log", "qmp.jsonl", "screen.png", "spec.json"],
        ),
    ],
)
def test_a_machine_that_does_not_come_up(
    pytester: pytest.Pytester, run: Run, mark: str, error: str, files: list[str]
) -> None:
    result = run(f"{EMPTY}\n@pytest.mark.vm({mark})\ndef test_it(vm): ...\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{error}: VM 'vm'*", "*- VM 'vm' (setup) -*", "everything: test-results/*/vm"])
    assert results(pytester) == {"test_it.py::test_it": {"vm": files}}


def test_a_machine_that_was_to_become_a_template(pytester: pytest.Pytester, run: Run) -> None:
    result = run("""
    import re
    import pytest
    @pytest.mark.vm(timeout=1, ready=re.compile("never printed"))
    def test_it(vm): ...
    """)
    result.assert_outcomes(errors=1)
    assert list(results(pytester)["test_it.py::test_it"]) == ["vm"]
    text = (only(pytester) / "command.txt").read_text()
    assert "# It did not come up.\n" in text
    assert "share=on" in text  # its memory, and that of no clone


def test_a_machine_that_does_not_come_up_and_is_saved(pytester: pytest.Pytester, run: Run) -> None:
    mark = "@pytest.mark.vm(devices=['VGA'], ready=re.compile('never'), timeout=1, args=['-S'])"
    result = run(f"{EMPTY}\n{mark}\ndef test_it(vm): ...\n", "--kvm-save-state")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*- VM 'vm' (setup) -*", "everything: test-results/*/vm"])
    kept = results(pytester)["test_it.py::test_it"]["vm"]
    assert {"screen.png", "state"} <= set(kept)
    assert '"host-qmp-quit"' in (only(pytester) / "qmp.jsonl").read_text()


def test_failures_in_teardown(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"""{EMPTY}
@pytest.fixture
def before():
    yield
    assert 0, "after its machine"  # which is closed by then

@pytest.fixture
def after(vm):
    yield
    vm.pause()
    assert 0, "before its machine"

def test_one(before, vm): ...
def test_other(after): ...
def test_good(vm): ...
def test_both(after):
    assert 0, "and now"
""")
    result.assert_outcomes(passed=3, failed=1, errors=3)
    files = ["command.txt", "console.log", "firmware.log", "qemu.log", "qmp.jsonl", "spec.json"]
    assert results(pytester) == {f"test_it.py::test_{name}": {"vm": files} for name in ("both", "one", "other")}
    for folder in (pytester.path / "test-results").glob("*/vm"):
        assert '"host-qmp-quit"' in (folder / "qmp.jsonl").read_text()
    (both,) = (pytester.path / "test-results").glob("*test_both*/vm")
    assert '"execute": "stop"' in (both / "qmp.jsonl").read_text()


def test_two_machines(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"""{EMPTY}
@pytest.mark.vm("client")
@pytest.mark.vm("Client", devices=["VGA"])
def test_it(vms, vm_factory):
    vms["client"].kill()
    vm_factory("third")
    vm_factory("never", autostart=False)
    assert 0
""")
    result.assert_outcomes(failed=1)
    assert list(results(pytester)["test_it.py::test_it"]) == ["Client-2", "client", "third"]
    assert (only(pytester, "Client-2") / "screen.png").exists()
    result.stdout.fnmatch_lines(["*VM 'client' (call)*", "*VM 'Client' (call)*", "*VM 'third' (call)*"])
    result.stdout.no_fnmatch_line("*VM 'never' (call)*")


def test_a_panic_is_told_once(pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)  # there, pytest's summary shows all of each error, too
    result = run("""
    def test_it(vm):
        vm.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")
    """)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert text.count("Kernel panic - not syncing: sysrq triggered crash") == 1
    result.stdout.fnmatch_lines(
        ["E*GuestPanic*", "*VM 'vm' (call)*", "last commands:", "*  lost *sysrq*", "everything: *"]
    )
    tail = text[text.index("VM 'vm' (call)") :].splitlines()
    assert len(tail) < 15


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_junit_xml_and_the_short_report(pytester: pytest.Pytester, run: Run, workers: tuple[str, ...]) -> None:
    result = run(
        f"""{EMPTY}
@pytest.mark.parametrize("text", ["\\x1b\\x00 é", "x" * 300, "a/b::c[d]", "A", "a"])
def test_it(vm, text):
    print("printed")
    assert vm.name == text
def test_good(vm): ...
""",
        "-rA",
        "--junit-xml=report.xml",
        *workers,
    )
    result.assert_outcomes(failed=5, passed=1)
    assert len(results(pytester)) == 5
    assert len({path.name.lower() for path in (pytester.path / "test-results").iterdir()}) == 5
    told = properties(pytester)
    assert {str(path) for path in (pytester.path / "test-results").iterdir()} == set(told.values())
    assert len(told) == 5
    assert "test_good" not in told
    lines = [line for line in result.outlines if line.startswith("everything: ")]
    assert {pytester.path / line.removeprefix("everything: ") for line in lines} == {
        path / "vm" for path in (pytester.path / "test-results").iterdir()
    }


def test_never(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"{EMPTY}\ndef test_it(vm): assert 0\n", "-o", "kvm_artifacts=never")
    result.assert_outcomes(failed=1)
    assert not (pytester.path / "test-results").exists()
    result.stdout.no_fnmatch_line("everything: *")
    result.stdout.no_fnmatch_line("kvm: not saved*")


def test_always(pytester: pytest.Pytester, run: Run) -> None:
    result = run(
        f"""{EMPTY}
@pytest.mark.vm(devices=["VGA"])
def test_good(vm): ...
@pytest.mark.xfail(reason="of course")
def test_expected(vm): assert 0
def test_bad(vm): assert 0
def test_none(): ...
def test_host(vm_factory):
    vm_factory()
    pytest.skip("now")
""",
        "--kvm-artifacts=always",
        "--kvm-artifacts-dir=out/kept",
    )
    result.assert_outcomes(passed=2, failed=1, xfailed=1, skipped=1)
    kept = results(pytester, "out/kept")
    assert sorted(kept) == [f"test_it.py::test_{name}" for name in ("bad", "expected", "good", "host")]
    assert "screen.png" in kept["test_it.py::test_good"]["vm"]
    assert not (pytester.path / "test-results").exists()


def test_expected_failures_are_none(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"""{EMPTY}
@pytest.mark.xfail(reason="of course")
def test_expected(vm): assert 0
@pytest.mark.xfail(strict=True, reason="or not")
def test_unexpected(vm): ...
""")
    result.assert_outcomes(failed=1, xfailed=1)
    assert list(results(pytester)) == ["test_it.py::test_unexpected"]


def test_session_machines(pytester: pytest.Pytester, run: Run) -> None:
    result = run("""
import pytest

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared")

def test_good(shared): shared.run("echo good")
def test_bad(shared):
    shared.run("echo bad")
    assert 0
def test_dynamic(request, vm_session_factory):
    request.getfixturevalue("shared").run("echo dynamic")
    assert 0
def test_another():
    pass
@pytest.mark.vm(image=None)
def test_own(vm):
    assert 0
""")
    result.assert_outcomes(passed=2, failed=3)
    kept = results(pytester)
    assert {test: list(machines) for test, machines in kept.items()} == {
        "test_it.py::test_bad": ["shared"],
        "test_it.py::test_dynamic": ["shared"],
        "test_it.py::test_own": ["vm"],
    }
    (bad,) = (pytester.path / "test-results").glob("*test_bad*/shared")
    assert [record["command"] for record in commands(bad)] == ["echo good", "echo bad"]


def test_a_session_machine_that_does_not_come_up(pytester: pytest.Pytester, run: Run) -> None:
    result = run("""
import pytest
@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared", image=None, args=["-nonsense"])
def test_it(shared): ...
""")
    result.assert_outcomes(errors=1)
    assert list(results(pytester)["test_it.py::test_it"]) == ["shared"]


AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    # As plugins do that run failed tests again.
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(2):
        item.attempt = attempt
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""


def test_a_test_that_runs_again(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeconftest(AGAIN)
    result = run(
        f"""{EMPTY}
@pytest.mark.vm("first")
def test_good_at_last(vms, request):
    assert request.node.attempt == 1
def test_bad_at_last(vm_factory, request):
    vm_factory(("first", "second")[request.node.attempt])
    assert 0
""",
        "--junit-xml=report.xml",
    )
    result.assert_outcomes(passed=1, failed=1)
    assert {test: list(machines) for test, machines in results(pytester).items()} == {
        "test_it.py::test_bad_at_last": ["second"]
    }
    assert list(properties(pytester)) == ["test_bad_at_last"]


def test_trouble_is_told_and_hides_nothing(pytester: pytest.Pytester, run: Run) -> None:
    (pytester.path / "test-results").write_text("in the way")
    test = f"{EMPTY}\ndef test_it(vm): assert 'its own' == 'failure'\ndef test_good(vm): ...\n"
    for options in ((), ("-n", "1")):
        result = run(test, "--junit-xml=report.xml", *options)
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(
            [
                "E*AssertionError: assert 'its own' == 'failure'",
                "*- VM 'vm' (call) -*",
                "*- kvm: not saved (call) -*",
                f"{pytester.path}/test-results*: Not a directory",
                f"kvm: not saved: {pytester.path}/test-results*: Not a directory",
            ],
            consecutive=False,
        )
        result.stdout.no_fnmatch_line("everything: *")
        assert "kvm_artifacts_trouble" in (pytester.path / "report.xml").read_text()
    assert (pytester.path / "test-results").read_text() == "in the way"


def test_a_full_disk(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"""{EMPTY}
import os
from pytest_kvm.plugin.artifacts import artifacts_folder
def test_it(vm, pytestconfig):
    (artifacts_folder(pytestconfig, vm) / "console.log").symlink_to("/dev/full")
    vm.serial._write_log(b"printed")
    assert 'its own' == 'failure'
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*assert 'its own' == 'failure'", "everything: test-results/*", "*/vm/console.log: No space left on device"]
    )
    assert "spec.json" in results(pytester)["test_it.py::test_it"]["vm"]


@pytest.mark.slow
def test_a_folder_of_somebody_elses(pytester: pytest.Pytester, run: Run) -> None:
    test = f"{EMPTY}\ndef test_it(vm): assert 0\n"
    run(test)
    (mark,) = (pytester.path / "test-results").glob("*/test.json")
    mark.write_text("mine")
    result = run(test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["kvm: not saved: *: is there, and is not of an earlier run of this test"])
    assert mark.read_text() == "mine"


def test_an_interrupted_test(pytester: pytest.Pytester, run: Run) -> None:
    result = run(f"""{EMPTY}
import os, signal
def test_it(vm):
    vm.qmp.execute("query-name")
    os.kill(os.getpid(), signal.SIGINT)
    vm.qmp.wait_event("NEVER")
""")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["kvm: what there is of the interrupted test: test-results/test_it.py-test_it-*"])
    assert '"host-qmp-quit"' in (only(pytester) / "qmp.jsonl").read_text()


def test_nothing_secret(pytester: pytest.Pytester, run: Run) -> None:
    key = pytester.path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (pytester.path / "disk.raw").write_bytes(bytes(1 << 20))
    run("""
import pytest
from pytest_kvm import Image
IMAGE = Image("disk.raw", login="me", password="pass-word", ssh_user="me", ssh_key="key")
@pytest.mark.vm(image=IMAGE, ready="none", user_data="#!/bin/sh\\necho hush-hush", start="boot")
def test_it(vm):
    vm.qmp.execute("object-add", {"qom-type": "secret", "id": "s", "data": "data-data"})
    assert 0
""").assert_outcomes(failed=1)
    (secret,) = re.findall("^b3BlbnNzaC1rZXk.*$", key.read_text(), re.MULTILINE)
    kept = {path.name: path.read_bytes() for path in only(pytester).iterdir()}
    assert set(kept) == {"command.txt", "console.log", "firmware.log", "qemu.log", "qmp.jsonl", "spec.json"}
    for name, content in kept.items():
        for word in ("pass-word", "hush-hush", "data-data", secret, "PRIVATE KEY"):
            assert word.encode() not in content, f"{word} in {name}"
    assert b"disk-seed" in kept["command.txt"]


def test_mistyped_options(pytester: pytest.Pytester, run: Run) -> None:
    result = run("def test_it(): ...", "--kvm-artifacts=allways")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kvm-artifacts=allways: *'allways'*'always'*"])


def test_where_they_go(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini("[pytest]\nkvm_artifacts_dir = from-ini\n")
    sub = pytester.mkdir("sub")
    (sub / "test_sub.py").write_text(f"{EMPTY}\ndef test_it(vm): assert 0\n")
    pytester.chdir()
    os.chdir(sub)
    run("", "-n", "1").assert_outcomes(failed=1)
    run("", "--kvm-artifacts-dir=from-option").assert_outcomes(failed=1)
    assert list(results(pytester, "from-ini")) == ["sub/test_sub.py::test_it"]
    assert list(results(pytester, "sub/from-option")) == ["sub/test_sub.py::test_it"]
