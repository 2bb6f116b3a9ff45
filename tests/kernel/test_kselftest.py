"""Kernel selftests in real guests: installations on the host and in the guest, and what becomes of their cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_kvm import VM, CasesFailed, MachineError, SpecError
from pytest_kvm.kernel.kselftest.selection import Selected, read_list, select
from pytest_kvm.kernel.ktap.case import Outcome
from pytest_kvm.plugin.factories import VMFactory
from tests.kernel.kselftests import install
from tests.outcomes import Outcomes, run_session

LIST = "net:gro.sh\nnet:tls\nnet/forwarding:bridge.sh\n\nsize:get_size\n"

TESTS = {
    "mix:good": "#!/bin/sh\necho all is well\n",
    "mix:bad.sh": "#!/bin/sh\necho 3 of 4 bytes; exit 3\n",
    "mix:lacks": "#!/bin/sh\necho no hardware; exit 4\n",
    "mix:late": "#!/bin/sh\nsleep 600 & echo waits; wait\n",
    "mix:slow": "#!/bin/sh\nexec sleep 600\n",
    "mix:last": "#!/bin/sh\necho TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two\n",
    "ends:first": "#!/bin/sh\ntrue\n",
    "ends:crash": "#!/bin/sh\necho c >/proc/sysrq-trigger; sleep 600\n",
    "ends:never": "#!/bin/sh\ntrue\n",
    "odd:sloppy": "#!/bin/sh\necho TAP version 13; echo 1..3\n",
    "odd:bash": "#!/bin/bash\nif [[ $PWD == */odd ]]; then source ../mix/lib.sh; fi\n",
    "odd:linked": "",  # a program of the host's
}


TIMEOUT = """\
#!/bin/sh
[ $1 = --foreground ] && shift
/bin/busybox timeout "$@"
status=$?
[ $status = 143 ] && exit 124
exit $status
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = install(tmp_path_factory.mktemp("kselftest"), TESTS, settings={"mix": "timeout=1\n"})
    (folder / "mix" / "lib.sh").write_text("echo sourced\n")
    program = shutil.which("udevadm") or shutil.which("gpg")  # either needs libraries that the guest has not
    assert program is not None
    (folder / "odd" / "linked").unlink()
    (folder / "odd" / "linked.bin").write_bytes(Path(program).read_bytes())
    (folder / "odd" / "linked.bin").chmod(0o755)
    (folder / "odd" / "linked").write_text("#!/bin/sh\n./linked.bin --version\n")
    (folder / "odd" / "linked").chmod(0o755)
    return folder


def test_what_is_selected() -> None:
    available = read_list(LIST)
    assert available == {"net": ("gro.sh", "tls"), "net/forwarding": ("bridge.sh",), "size": ("get_size",)}
    assert select(["size", "net:tls", "net:tls"], available, "/x") == [
        Selected("size", ("get_size",), True),
        Selected("net", ("tls",), False),
    ]
    assert select(["net:tls", "net"], available, "/x") == [Selected("net", ("gro.sh", "tls"), True)]
    assert select(["net:tls", "net:gro.sh"], available, "/x")[0].options == ["-t", "net:tls", "-t", "net:gro.sh"]
    assert select(["net/forwarding"], available, "/x")[0].options == ["-c", "net/forwarding"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("selftests: net: gro.sh", "net:gro.sh"),
        ("selftests: net/forwarding: a.sh/one/two", "net/forwarding:a.sh/one/two"),
        ("2", "net:tls"),
        ("2/1", "net:tls/1"),
        ("9", "net:9"),
        ("else", "net:else"),
    ],
)
def test_names(said: str, name: str) -> None:
    assert Selected("net", ("gro.sh", "tls"), True).name(said) == name


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nte", "no collection 'nte' in /x; did you mean 'net'? there are net, net/forwarding, size"),
        ("net:gro", "no test 'gro' in 'net' in /x; did you mean 'gro.sh'? there are gro.sh, tls"),
        ("zzz:gro", "no collection 'zzz' in /x; there are net, net/forwarding, size"),
        ("", "no collection '' in /x; there are net, net/forwarding, size"),
    ],
)
def test_what_is_not_there(name: str, error: str) -> None:
    with pytest.raises(SpecError) as raised:
        select(["size", name], read_list(LIST), "/x")
    assert str(raised.value) == f"vm.kselftest({name!r}): {error}"


SESSION = """
def test_mix(vm):
    vm.kselftest("mix", path={path!r})

def test_crash(vm):
    vm.kselftest("ends", "mix:good", path={path!r})

def test_both(vm):
    result = vm.kselftest("odd:sloppy", "mix:good", "odd:bash", "mix:last", path={path!r})
    names = ["odd:sloppy", "odd:bash", "mix:good", "mix:last/one", "mix:last/two"]
    assert [case.name for case in result.cases] == names
    assert result["odd:bash"].log.endswith("sourced")
"""


def test_cases_are_subtests(pytester: pytest.Pytester, installed: Path) -> None:
    session = run_session(pytester, SESSION.format(path=str(installed)), "-rA")
    said = session.result.stdout
    for line in (
        "SUBFAILED[[]mix:bad.sh[]] test_it.py::test_mix - mix:bad.sh: failed (exit=3)",
        "SUBFAILED[[]mix:late[]] test_it.py::test_mix - mix:late: timeout (* seconds)",
        "SUBFAILED[[]ends:crash[]] test_it.py::test_crash - ends:crash: crashed (VM 'vm': *",
        "SUBFAILED[[]ends:never[]] test_it.py::test_crash - ends:never: not run (VM 'vm': *",
    ):
        said.fnmatch_lines([line])
    said.fnmatch_lines(["# 3 of 4 bytes"])
    assert outcomes(session, "test_mix") == [
        *("passed", "failed", "skipped", "failed", "failed", "passed", "passed", "failed")
    ]
    assert outcomes(session, "test_crash") == ["passed", "failed", "failed", "failed"]
    assert session.outcome("test_both") == "passed", session.text("test_both")
    assert "GuestPanic" in session.text("test_crash")


def outcomes(session: Outcomes, name: str) -> list[str]:
    """Return what became of the cases of a test, and at the end of the test itself."""
    return [told.outcome for told in session.tests[name] if told.when == "call"]


@pytest.fixture(scope="module")
def guest(vm_session_factory: VMFactory) -> VM:
    return vm_session_factory("selftested")


def test_they_are_copied_once(vm: VM, installed: Path) -> None:
    result = vm.kselftest("odd:sloppy", path=installed, check=False)
    assert result.good
    (folder,) = vm.run("ls -d /tmp/pytest-kvm-kselftest-*").stdout.split()
    assert vm.run("ls odd", cwd=folder).stdout.split() == ["bash", "linked", "linked.bin", "settings", "sloppy"]
    assert vm.run("ls mix; ls -d ends", cwd=folder, check=False).stdout.split() == ["lib.sh"]  # for others to source
    vm.run("touch odd/mine", cwd=folder)
    assert vm.kselftest("odd:bash", "ends:first", path=installed, check=False).good
    assert vm.run("ls ends/first odd/mine", cwd=folder).stdout.split() == ["ends/first", "odd/mine"]


def test_libraries_of_the_host(guest: VM, installed: Path) -> None:
    result = guest.kselftest("odd:linked", path=installed, check=False)
    assert result.good, result.text


def test_a_limit_of_ones_own(guest: VM, installed: Path) -> None:
    result = guest.kselftest("mix:late", path=installed, check=False, timeout=2)
    assert [(case.name, case.outcome, case.reason) for case in result.cases] == [
        ("mix:late", Outcome.TIMEOUT, "2 seconds")
    ]
    assert guest.run("pidof sleep", check=False).returncode == 1
    assert guest.kselftest("mix:good", path=installed, timeout=None, check=False).good


def test_the_guest_is_lost_as_expected(vm: VM, installed: Path) -> None:
    with vm.expect_panic("sysrq"):
        result = vm.kselftest("mix:good", "ends", "odd", path=installed, check=False)
    assert [(case.name, case.outcome.value) for case in result.cases] == [
        *(("mix:good", "passed"), ("ends:first", "passed"), ("ends:crash", "crashed"), ("ends:never", "not run")),
    ]
    assert result.problems == ["odd: not run"]
    assert result.returncode is None


def test_failing_cases_where_there_are_no_subtests(vm: VM, installed: Path) -> None:
    vm.observer = None
    with pytest.raises(CasesFailed, match=r"^VM 'vm': 1 passed, 1 failed .*\nmix:bad\.sh: failed \(exit=3\)"):
        vm.kselftest("mix:good", "mix:bad.sh", path=installed)


@pytest.mark.parametrize("overrides", [False, True])
def test_an_installation_in_the_guest(vm: VM, tmp_path: Path, overrides: bool) -> None:
    with pytest.raises(MachineError, match=r"^VM 'vm': there are no kernel selftests in the guest .* path=…\)$"):
        vm.kselftest("mix")
    tests = {name: text for name, text in TESTS.items() if name.startswith("mix")}
    folder = install(tmp_path / "kselftest", tests, settings={"mix": "timeout=1\n"}, overrides=overrides)
    (there,) = vm.bring(folder)
    vm.run(f"mkdir -p /opt && mv {there} /opt/kselftest")
    with pytest.raises(MachineError, match=r"needs a timeout that knows --foreground, and the guest's is none"):
        vm.kselftest("mix")
    # Another guest's: it takes the word, and ends as coreutils' does.
    vm.run("rm /usr/bin/timeout && cat >/usr/bin/timeout && chmod +x /usr/bin/timeout", input=TIMEOUT)
    result = vm.kselftest("mix:good", "mix:slow", check=False, timeout=2)
    assert [case.outcome for case in result.cases] == [Outcome.PASSED, Outcome.TIMEOUT]
    assert result["mix:slow"].reason == ("2 seconds" if overrides else "1 seconds")


def test_what_is_no_installation(guest: VM, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^vm\.kselftest\(path='.*'\): expected what make .* run_kselftest\.sh is not"):
        guest.kselftest("size", path=tmp_path)
    (tmp_path / "lib.mk").touch()
    with pytest.raises(SpecError, match=r"these are the sources; make .* makes kselftest_install$"):
        guest.kselftest("size", path=tmp_path)
    with pytest.raises(SpecError, match=r"^vm\.kselftest\(\): name a collection"):
        guest.kselftest(path=tmp_path)
    old = install(tmp_path / "old", {"size:get": "#!/bin/sh\n"})
    (old / "run_kselftest.sh").write_text("#!/bin/sh\ncd size; ./get\n")
    with pytest.raises(
        MachineError, match=r"/run_kselftest\.sh cannot run single collections, as those of Linux 5\.10"
    ):
        guest.kselftest("size", path=old)
    large = install(tmp_path / "large", {"size:get": "#!/bin/sh\n"})
    with (large / "size" / "data").open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(MachineError, match=r"200 MiB cannot be copied to /tmp/.*No space left on device; vm\(memory=…"):
        guest.kselftest("size", path=large)


@pytest.mark.slow
def test_those_of_the_kernel(vm_factory: VMFactory, built_kernel_tree: Path) -> None:
    vm = vm_factory(kernel=built_kernel_tree)
    result = vm.kselftest("size", "timers:nanosleep", "sync", check=False)
    assert result.good, result.text
    names = [case.name for case in result.cases]
    assert names[:2] == ["size:get_size/get runtime memory use", "timers:nanosleep/CLOCK_REALTIME"]
    assert names[-1] == "sync:sync_test"
