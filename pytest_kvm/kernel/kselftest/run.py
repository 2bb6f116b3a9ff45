"""Run kernel selftests in the guest, collection by collection: each test a case."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.images.kernels.source import Kernel
from pytest_kvm.kernel.kselftest.installation import HELPERS, SCRIPT, Installation, find, on_host
from pytest_kvm.kernel.kselftest.selection import Selected, select
from pytest_kvm.kernel.kselftest.transfer import LIBRARIES, brought
from pytest_kvm.kernel.ktap import run as ktap
from pytest_kvm.kernel.ktap.case import Case, KTAPResult
from pytest_kvm.waiting import Usual

# kselftest's own for one test, where the collection's settings say nothing else.
TEST_TIMEOUT = Usual(45)
# What the tests of a collection may take beside their own times, in seconds.
_BESIDE = Usual(60)
# For a collection whose tests may take any time.
_ENDLESS = Usual(3600)
_FIELD = "timeout="
_TOOLS = ("basename", "cat", "cut", "dirname", "grep", "head", "realpath", "sed", "tr", "uniq", "wc")


def run_kselftest(
    vm: ktap.Guest,
    names: Sequence[str],
    kernel: Kernel | None,
    *,
    path: Path | None,
    check: bool,
    timeout: float | None,
) -> KTAPResult:
    """Do what ``VM.kselftest`` says."""
    if not names:
        raise SpecError("vm.kselftest(): name a collection, such as 'timers', or a test of one, 'timers:posix_timers'")
    installation = on_host(path) if path is not None else find(vm, kernel)
    selected = select(names, installation.tests, installation.folder)
    _check_tools(vm)
    folder = brought(vm, installation, selected) if installation.host is not None else installation.folder
    overrides = _prepare(vm, folder, own=installation.host is not None)
    results: list[KTAPResult] = []
    told = 0
    for each in selected:
        settings = _settings(vm, folder, installation, each)
        limit = _limit(vm, settings, timeout)
        if installation.host is not None:
            _set_limit(vm, folder, each, settings, limit)
        options = ["-o", _said(limit)] if overrides and installation.host is None else []
        script = _script([f"./{SCRIPT}", *options, *each.options], folder)
        run = ktap.Run(vm, observed=check, named=partial(_named, each))
        result = ktap.carry_out(run, script, _whole(vm, each, limit), check=check)
        results.append(replace(result, problems=[*_problems(each, result)]))
        told += run.told
        if result.returncode is None:
            break
    result = ktap.joined(results)
    missed = [f"{each.collection}: not run" for each in selected[len(results) :]]
    result = replace(result, problems=[*result.problems, *missed])
    if check:
        ktap.judge(vm, shlex.join(["kselftest", *names]), result, told=told)
    return result


def _named(selected: Selected, case: Case) -> str:
    return selected.name(case.name)


def _problems(selected: Selected, result: KTAPResult) -> Iterator[str]:
    """Yield what was wrong with the runner's output. What is with a test's own is not: its exit status counts.

    Many announce cases that they do not tell of.
    """
    for problem in result.problems:
        if not problem.startswith("selftests: "):
            yield f"{selected.collection}: {problem}"


def _check_tools(vm: ktap.Guest) -> None:
    words = " ".join(_TOOLS)
    done = vm.run(f"for tool in {words}; do command -v $tool >/dev/null || echo $tool; done", check=False)
    missing = done.stdout.split()
    if missing:
        raise MachineError(f"VM {vm.name!r}: {SCRIPT} needs {', '.join(missing)}, which the guest does not have")


def _prepare(vm: ktap.Guest, folder: str, *, own: bool) -> bool:
    """Give the guest what every other one has; return whether the runner takes a limit for its tests.

    Raises MachineError for a runner, or a guest, with which nothing can come of it.
    """
    done = vm.run(
        "for link in fd: stdin:/0 stdout:/1 stderr:/2; do"
        " test -e /dev/${link%:*} || ln -sf /proc/self/fd${link#*:} /dev/${link%:*}; done 2>/dev/null;"
        " test -e /dev/stdout || exit 4;"
        f" grep -q -e --collection {SCRIPT} || exit 3;"
        " test ! -x /usr/bin/timeout || /usr/bin/timeout --foreground 9 true 2>/dev/null || echo busybox;"
        f" grep -q -e --override-timeout {SCRIPT} && echo overrides; exit 0",
        check=False,
        cwd=folder,
    )
    if done.returncode == 4:
        raise MachineError(f"VM {vm.name!r}: {SCRIPT} needs /dev/stdout, which the guest does not have ({vm.via})")
    if done.returncode:
        raise MachineError(
            f"VM {vm.name!r}: {folder}/{SCRIPT} cannot run single collections, as those of Linux 5.10 and later can"
        )
    words = done.stdout.split()
    if "busybox" in words and not own:
        raise MachineError(
            f"VM {vm.name!r}: {folder}/{HELPERS}/runner.sh needs a timeout that knows --foreground, and the guest's is"
            " none (busybox); name the folder on the host instead: vm.kselftest(…, path=…)"
        )
    return "overrides" in words


def _settings(vm: ktap.Guest, folder: str, installation: Installation, selected: Selected) -> list[str]:
    """Return the lines of a collection's settings, as it came."""
    if installation.host is not None:
        file = installation.host / selected.collection / "settings"
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    command = ["cat", f"{folder}/{selected.collection}/settings"]
    return vm.run(command, check=False).stdout.splitlines()


def _limit(vm: ktap.Guest, settings: Sequence[str], timeout: float | None) -> float | None:
    """Return how long each test of a collection may take: as somebody says, or as its settings do, at this pace."""
    if not isinstance(timeout, Usual):
        return timeout
    said = [line.removeprefix(_FIELD).strip() for line in settings if line.startswith(_FIELD)]
    seconds = Usual(float(said[-1])) if said and said[-1].isdecimal() else timeout
    return vm.watch.limit(seconds) or None


def _said(limit: float | None) -> str:
    """Return a limit as the runner takes it: 0 is none."""
    return str(0 if limit is None else max(1, round(limit)))


def _set_limit(vm: ktap.Guest, folder: str, selected: Selected, settings: Sequence[str], limit: float | None) -> None:
    """Write the limit into the settings of our copy: the runners of all versions read them."""
    lines = [*(line for line in settings if not line.startswith(_FIELD)), f"{_FIELD}{_said(limit)}", ""]
    file = shlex.quote(f"{folder}/{selected.collection}/settings")
    vm.run(f"cat >{file}", input="\n".join(lines).encode())


def _whole(vm: ktap.Guest, selected: Selected, limit: float | None) -> float:
    """Return how long a collection may take: nothing waits for ever where a test is not ended in time."""
    beside = vm.watch.limit(_BESIDE)
    return beside + (len(selected.tests) * limit if limit is not None else vm.watch.limit(_ENDLESS))


def _script(words: Sequence[str], folder: str) -> str:
    """Return the script that runs the runner. What it writes to is a pipe: it opens that once more."""
    libraries = f"{folder}/{LIBRARIES}"
    return (
        f"cd {shlex.quote(folder)} || exit;"
        f" test ! -d {libraries} || export LD_LIBRARY_PATH={libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}};"
        f" exec 4>&1; status=$({{ {{ {shlex.join(words)} 2>&1 3>&- 4>&-; echo $? >&3; }} | cat >&4; }} 3>&1);"
        " exit $status"
    )
