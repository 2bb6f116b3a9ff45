"""A clone against a boot, to the same points, in alternation; and both against the floors of the same run."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, VMFactory
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.machine.templates import Templates
from pytest_kvm.plugin.launching import LAUNCHER
from tests.benchmarks.conftest import Table

ROUNDS = 15
BOOTS = 5
FLOOR = "QEMU started until QMP answers"
BOOT, CLONE = "boot: first output of vm.run", "clone: first output of vm.run"
BOOT_SSH, CLONE_SSH = "boot: first output over SSH", "clone: first output over SSH"
SSH = "ssh to a running guest: connect and exec"
TESTS = """
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_it(vm, n):
    assert vm.run("echo {{}}".format(n)).stdout == "{{}}\\n".format(n)
"""


def qemu_alone(binary: str) -> float:
    """Start QEMU with next to nothing until it has answered over QMP; return the seconds."""
    began = time.perf_counter()
    command = [binary, "-nodefaults", "-no-user-config", "-machine", "q35", "-display", "none", "-S", "-qmp", "stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write(json.dumps({"execute": "qmp_capabilities"}).encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        seconds = time.perf_counter() - began
        process.kill()
    return seconds


def ssh_alone(vm: VM) -> float:
    host, port = vm.forward(22)
    image = vm._image
    assert image is not None
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    words = [word for option in options for word in ("-o", option)]
    began = time.perf_counter()
    subprocess.run(
        ["ssh", *words, "-i", str(image.ssh_key), "-p", str(port), f"root@{host}", "echo x"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def test_clone_and_boot(vm_factory: VMFactory, table: Table, pytestconfig: pytest.Config) -> None:
    vm_factory("first").close()  # the template is there
    seconds: dict[str, list[float]] = defaultdict(list)

    def measure(name: str, use: Callable[[VM], object], start: str) -> VM:
        began = time.perf_counter()
        vm = vm_factory(start=start)
        use(vm)
        seconds[name].append(time.perf_counter() - began)
        return vm

    memory = []
    launcher = pytestconfig.stash[LAUNCHER]
    for number in range(ROUNDS):
        seconds[FLOOR].append(qemu_alone(str(launcher.binary.path)))
        vm = measure(CLONE, lambda vm: vm.run("echo x"), "clone")
        memory.append(private_mib(vm))
        began = time.perf_counter()
        vm.close()
        seconds["teardown"].append(time.perf_counter() - began)
        measure(CLONE_SSH, lambda vm: vm.ssh.run("echo x"), "clone").close()
        if number < BOOTS:
            measure(BOOT, lambda vm: vm.run("echo x"), "boot").close()
            measure(BOOT_SSH, lambda vm: vm.ssh.run("echo x"), "boot").close()
    table.add(FLOOR, seconds[FLOOR])
    table.add(BOOT, seconds[BOOT])
    table.add(CLONE, seconds[CLONE], BOOT, FLOOR)
    table.add(BOOT_SSH, seconds[BOOT_SSH])
    table.add(CLONE_SSH, seconds[CLONE_SSH], BOOT_SSH)
    table.add("teardown", seconds["teardown"], FLOOR)
    table.add("private memory of a clone after a command", memory, unit="MiB")


def private_mib(vm: VM) -> float:
    rollup = Path(f"/proc/{vm.pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)) / 1024


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")
def test_ssh_floor(vm: VM, table: Table) -> None:
    vm.ssh.run("true")
    table.add(SSH, [ssh_alone(vm) for _ in range(ROUNDS)])
    table.add("clone: vm.ssh.run, connected", [vm.ssh.run("true").seconds for _ in range(ROUNDS)], SSH)


def test_template(vm_factory: VMFactory, table: Table) -> None:
    seconds = []
    store = Templates(cache_dir() / "templates")
    before = {entry.key for entry in store.entries()}
    for _ in range(3):
        began = time.perf_counter()
        vm_factory(append=f"bench={secrets.token_hex(4)}").close()
        seconds.append(time.perf_counter() - began)
    table.add("a machine whose template has to be made", seconds, BOOT)
    made = [entry for entry in store.entries() if entry.key not in before]
    table.add("size of a template", [entry.size / 1024**2 for entry in made], unit="MiB")


def test_plugging(vm_factory: VMFactory, table: Table, tmp_path: Path) -> None:
    given = tmp_path / "given.raw"
    given.write_bytes(bytes(1 << 20))
    without: list[float] = []
    plugged: list[float] = []
    for _ in range(ROUNDS):
        for drives, seconds in (([], without), ([Drive(given, format="raw")], plugged)):
            with contextlib.closing(vm_factory(drives=drives)) as vm:
                assert vm.started is not None
                seconds.append(vm.started.seconds)
    table.add("clone: ready", without)
    table.add("clone: ready, with a given drive plugged in", plugged, "clone: ready")


def test_snapshot(vm_factory: VMFactory, table: Table) -> None:
    taken, restored = [], []
    with contextlib.closing(vm_factory()) as vm:
        for _ in range(5):
            began = time.perf_counter()
            state = vm.snapshot()
            taken.append(time.perf_counter() - began)
            vm.restore(state)  # its RAM is read once
            began = time.perf_counter()
            vm.restore(state)
            restored.append(time.perf_counter() - began)
    table.add("vm.snapshot()", taken, BOOT)
    table.add("vm.restore(), again", restored, BOOT)


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("each boots, one worker", 10, ["--kvm-start=boot"]),
        ("each boots, two workers", 20, ["--kvm-start=boot", "-n", "2"]),
        ("a clone each, one worker", 200, []),
        ("a clone each, two workers", 200, ["-n", "2"]),
    ],
)
def test_tests_per_minute(pytester: pytest.Pytester, table: Table, name: str, count: int, options: list[str]) -> None:
    pytester.makepyfile(TESTS.format(count=count))
    began = time.perf_counter()
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
    seconds = time.perf_counter() - began
    result.assert_outcomes(passed=count)
    against = ["tests a minute: each boots, one worker"] if "clone" in name else []
    table.add(f"tests a minute: {name}", [60 * count / seconds], *against, unit="")


def test_image(vm_factory: VMFactory, table: Table, pytestconfig: pytest.Config) -> None:
    image = pytestconfig.getoption("--bench-image")
    if image is None:
        pytest.skip("no --bench-image")
    boots: list[float] = []
    clones: list[float] = []
    vm_factory(image=image, ready="login", start="clone", memory="512M").close()
    for _ in range(BOOTS):
        for start, seconds in (("boot", boots), ("clone", clones)):
            began = time.perf_counter()
            with contextlib.closing(vm_factory(image=image, ready="login", start=start, memory="512M")) as vm:
                vm.console.expect("login: ")
                seconds.append(time.perf_counter() - began)
    table.add("image, boot: login prompt", boots)
    table.add("image, clone: login prompt", clones, "image, boot: login prompt", FLOOR)
