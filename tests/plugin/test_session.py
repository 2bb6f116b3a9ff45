"""Options, markers, header, and what a session without machines pays."""

from __future__ import annotations

import os
import sys
from dataclasses import fields

import pytest

from pytest_kvm.host.amounts import UNLIMITED
from pytest_kvm.host.cache import CACHE_VARIABLE
from pytest_kvm.plugin.hooks import FIELDS
from pytest_kvm.spec.fields import CHECKS, VMFields
from pytest_kvm.spec.vm import VMSpec
from tests.plugin.conftest import Scene, events


def test_one_list_of_fields() -> None:
    named = [field.name for field in fields(VMSpec)]
    assert list(CHECKS) == named
    assert list(VMFields.__annotations__) == named
    assert FIELDS.replace("=", "").split(", ") == named[1:]


def test_the_marker_is_explained(scene: Scene) -> None:
    result = scene().runpytest("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.vm(name, [*], image=, *: a virtual machine for the test.*"])


def test_machines_are_selected_by_their_marker(scene: Scene) -> None:
    pytester = scene("""
@pytest.fixture
def ssh(vm): return vm
def test_direct(vm): ...
def test_indirect(ssh): ...
def test_factory(vm_factory): ...
@pytest.mark.usefixtures("vms")
def test_used(): ...
def test_none(): ...
""")
    pytester.runpytest("-m", "vm").assert_outcomes(passed=4, deselected=1)
    pytester.runpytest("-m", "not vm").assert_outcomes(passed=1, deselected=4)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    ("option", "text"),
    [
        (
            "--kvm-accel=kmv",
            "ERROR: --kvm-accel=kmv: unknown accelerator 'kmv'; did you mean 'kvm'?",
        ),
        (
            "--kvm-timeout=soon",
            "ERROR: --kvm-timeout=soon: expected a number of seconds, more than 0, got 'soon'",
        ),
        (
            "--kvm-timeout=0",
            "ERROR: --kvm-timeout=0: expected a number of seconds, more than 0, got 0.0",
        ),
        (
            "--kvm-memory-budget=much",
            "ERROR: --kvm-memory-budget=much: expected a size such as '6G', or 'off', got 'much'",
        ),
        (
            "--kvm-max-machines=0",
            "ERROR: --kvm-max-machines=0: expected a number, at least 1, or 'off', got '0'",
        ),
        (
            "--override-ini=kvm_accel=fast",
            "ERROR: ini option kvm_accel = fast: unknown accelerator 'fast'; valid are auto, kvm, tcg or hvf",
        ),
        (
            "--override-ini=kvm_strict=maybe",
            "ERROR: ini option kvm_strict: expected true or false; invalid truth value 'maybe'",
        ),
    ],
)
def test_mistyped_options(scene: Scene, option: str, text: str, workers: tuple[str, ...]) -> None:
    result = scene("def test_it(): ...").runpytest(option, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([text])


def test_options_are_nearer_than_ini_and_farther_than_markers(scene: Scene) -> None:
    pytester = scene("""
def test_option(vm):
    assert (vm.spec.image, vm.spec.accel) == ("cirros", "tcg,thread=single")
@pytest.mark.vm(image="tiny:bookworm")
def test_marker(vm):
    assert vm.spec.image == "tiny:bookworm"
    assert vm.spec.start == "boot"
""")
    ini = [
        "-o",
        "kvm_image=tiny",
        "-o",
        "kvm_accel=tcg,thread=single",
        "-o",
        "kvm_timeout=7",
        "-o",
        "kvm_offline=1",
        "-o",
        "kvm_start=boot",
        "-o",
        "kvm_template_limit=3M",
        "-o",
        "kvm_memory_budget=2G",
        "-o",
        "kvm_max_machines=3",
    ]
    options = ["--kvm-image=cirros", "--kvm-archive=local", "--kvm-keyring=keys", "--kvm-max-vcpus=off"]
    result = pytester.runpytest(*ini, *options)
    result.assert_outcomes(passed=2)
    keyring = pytester.path / "keys"
    settings = f"Settings(qemu=None, offline=True, archive='local', keyring='{keyring}', images={{}}, "
    settings += f"template_limit={3 << 20}, "
    settings += f"limits=Limits(memory={2 << 30}, vcpus={UNLIMITED}, machines=3), run='', monitor=False, vmcore=False, "
    settings += "share='auto', vmlinux=[], gdb_wait=False)"
    assert events(pytester)[0] == f"launcher {settings} 7.0"


def test_the_image_option_may_be_a_path(scene: Scene) -> None:
    pytester = scene("from pathlib import Path\ndef test_it(vm): assert vm.spec.image == Path('own.img').absolute()")
    (pytester.path / "own.img").touch()
    pytester.runpytest("--kvm-image=own.img").assert_outcomes(passed=1)


def test_the_header_names_the_qemu(scene: Scene) -> None:
    pytester = scene()
    qemu = pytester.path / "qemu-old"
    qemu.write_text("#!/bin/sh\ntest $1 = -version && echo 'QEMU emulator version 7.2.9 (Old)'\nexit 0\n")
    qemu.chmod(0o755)
    result = pytester.runpytest(f"--kvm-qemu={qemu}", "--kvm-accel=tcg", "--kvm-image=cirros")
    result.stdout.fnmatch_lines([f"kvm: QEMU 7.2.9 ({qemu}), accel=tcg, image=cirros"])
    result = pytester.runpytest("--kvm-qemu=./none")
    result.stdout.fnmatch_lines([f"kvm: *{pytester.path}/none*"])


def test_messages_of_the_launcher_are_shown_past_the_capturing(scene: Scene) -> None:
    result = scene("def test_it(vm): ...").runpytest()
    result.stdout.fnmatch_lines(["kvm: made a launcher"])


HEAVY = (
    "paramiko",
    "pexpect",
    "qemu",
    "cryptography",
    "pytest_kvm.machine",
    "pytest_kvm.guest",
    "pytest_kvm.spec.vm",
)


def test_a_session_without_machines_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("\n".join(f"def test_{number}(): ..." for number in range(300)))
    pytester.makeconftest(f"""
import sys
def pytest_unconfigure():
    print("imported:", [name for name in {HEAVY} if name in sys.modules])
""")
    result = pytester.runpytest_subprocess("-s", "-q")
    result.assert_outcomes(passed=300)
    result.stdout.fnmatch_lines(["imported: []"])


def test_no_tests_are_in_the_cache(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of kernels are kept there, and those have tests that end the process that imports them."""
    monkeypatch.setenv(CACHE_VARIABLE, "cache")
    pytester.makepyfile(**{"cache/test_kernel": "raise SystemExit", "other/test_it": "def test_it(): ..."})
    pytester.runpytest().assert_outcomes(passed=1)


def test_public_names_are_imported_when_used() -> None:
    code = """
import sys, pytest_kvm
assert "pytest_kvm.errors" not in sys.modules
from pytest_kvm import Drive, FromFixture, Nic, SpecError, VMSpec, vm_parametrize
assert pytest_kvm.__version__
assert set(dir(pytest_kvm)) >= {"VM", "CompletedCommand", "VMFactory"}
try:
    pytest_kvm.Drvie
except AttributeError as error:
    assert str(error) == "module 'pytest_kvm' has no attribute 'Drvie'"
else:
    raise SystemExit("no AttributeError")
"""
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
