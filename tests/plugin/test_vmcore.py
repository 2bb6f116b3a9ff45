"""``--kvm-vmcore``: the memory of a guest that has panicked is kept with what else is known of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outcomes import run_session

TESTS = """
import pytest

def test_panics(vm):
    vm.run("echo c >/proc/sysrq-trigger; sleep 600")

def test_fails(vm):
    assert "vmcoreinfo" in vm.spec.devices
    assert False

def test_expected(vm):
    with vm.expect_panic():
        vm.run("echo c >/proc/sysrq-trigger", check=False)

@pytest.mark.vm(image=None)
def test_bare(vm):
    assert "vmcoreinfo" not in vm.spec.devices

@pytest.mark.vm(devices=["vmcoreinfo,id=mine"])
def test_declared(vm):
    assert list(vm.spec.devices) == ["vmcoreinfo,id=mine"]
"""


@pytest.mark.parametrize("workers", [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_a_guest_that_panics(pytester: pytest.Pytester, workers: list[str]) -> None:
    session = run_session(pytester, TESTS, "--kvm-vmcore", *workers)
    session.result.assert_outcomes(passed=3, failed=2)
    (vmcore,) = pytester.path.glob("test-results/*/vm/vmcore")
    assert vmcore.parent.parent.name.startswith("test_it.py-test_panics")
    data = vmcore.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert b"OSRELEASE=" in data[:8192]
    (state,) = (text for told in session.tests["test_panics"] for title, text in told.sections if title == "kvm state")
    assert state == f"the memory of VM 'vm' is in {vmcore}"
    assert not [each for told in session.tests["test_fails"] for each in told.sections if each[0] == "kvm state"]


def test_no_place_for_it(pytester: pytest.Pytester) -> None:
    options = ["--kvm-vmcore", "--kvm-artifacts=never", "-k", "panics"]
    session = run_session(pytester, TESTS, *options)
    session.result.assert_outcomes(failed=1)
    assert list(Path(pytester.path).glob("test-results/*")) == []
