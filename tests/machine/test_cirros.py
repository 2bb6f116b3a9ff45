"""CirrOS, as the catalogue describes it, on a stand-in with its manners: the seed, the ways in, clones."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm import VM, CommandError, Drive, Image, LoginFailed, SpecError, VMFactory
from pytest_kvm.images.published import find_published
from pytest_kvm.images.publishers import PUBLISHERS
from pytest_kvm.machine.kernels import running_kernel

BANNER = r"login as 'cirros' user\. default password: 'gocubsgo'\. use 'sudo' for root\.[\r\n]+{} login: "


@pytest.fixture(scope="session")
def cirros(cirros_disk: Path) -> Image:
    """The description of the catalogue, with the stand-in's disk."""
    published = find_published("cirros", PUBLISHERS)
    assert published is not None
    return replace(published.image, disk=cirros_disk, format=None, name="cirros")


@pytest.fixture(scope="session")
def seeded(cirros: Image, vm_session_factory: VMFactory) -> VM:
    """One machine for all tests that leave it as it was."""
    return vm_session_factory("seeded", image=cirros, user_data="#!/bin/sh\necho user data as $(id -un)\n")


@pytest.mark.parametrize("start", ["boot", "clone"])
def test_the_kernel_is_known_by_what_it_says(start: str, cirros: Image, vm_factory: VMFactory) -> None:
    """Nothing else is: it is on the image's disk."""
    vm = vm_factory(image=cirros, start=start)
    assert vm.started is not None
    assert vm.started.kind == start
    assert vm.host_kernel() is None
    known = running_kernel(vm)
    assert known is not None
    assert (known.release, known.version) == (vm.kernel.release, vm.kernel.version)


def test_it_is_ready_for_ssh_with_our_key(seeded: VM) -> None:
    assert (seeded.user, seeded.via) == ("cirros", "SSH, as cirros")
    assert seeded.run("id -un; hostname; pwd").stdout == "cirros\nseeded\n/home/cirros\n"
    assert seeded.run("sudo id -u").stdout == "0\n"
    with pytest.raises(CommandError, match=r"status 3 \(SSH, as cirros\)"):
        seeded.run("exit 3")


def test_console(seeded: VM) -> None:
    console = seeded.console
    with pytest.raises(LoginFailed, match="refused"):
        console.login(password="wrong")
    console.login()
    assert console.run("id -u; sudo id -u").stdout == "1000\n0\n"
    assert console.run("exit 4").returncode == 4
    long = "x" * 200
    assert console.run(f"echo {long}").stdout == f"{long}\n"


def test_files(seeded: VM, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(bytes(range(256)) * 5000)
    seeded.ssh.put(tmp_path / "here", "/home/cirros/there", mode=0o750)
    assert seeded.run("stat -c '%a %s' there").stdout == "750 1280000\n"
    seeded.ssh.get("/home/cirros/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()


def test_clones(cirros: Image, vm_factory: VMFactory) -> None:
    numbers = []
    for _ in range(2):
        vm = vm_factory(image=cirros)
        assert vm.started is not None
        assert vm.started.kind == "clone"
        assert abs(float(vm.run("date +%s").stdout) - time.time()) < 5
        numbers.append(vm.run("head -c 16 /dev/urandom", text=False).stdout)
        vm.console.expect(BANNER.format("vm2?"))
    assert numbers[0] != numbers[1]


@pytest.mark.slow
def test_config_drive_on_another_machine(cirros: Image, vm_factory: VMFactory) -> None:
    vm = vm_factory(
        image=cirros,
        seed="config-drive",
        machine="pc",
        memory="128M",
        user_data="#!/bin/sh\necho user data as $(id -un)\n",
        meta_data={"hostname": "driven"},
        start="boot",
    )
    vm.console.expect(r"user data as root\r\n")
    vm.console.expect(BANNER.format("driven"))
    assert vm.run("hostname").stdout == "driven\n"
    vm.console.login()
    vm.reboot()  # what the console shows now is from before
    vm.console.login()
    assert vm.console.run("id -un").stdout == "cirros\n"
    vm.shutdown()  # with the power button


@pytest.mark.slow
def test_with_a_password_only(cirros: Image, vm_factory: VMFactory) -> None:
    """CirrOS before 0.6 does not know our kind of key."""
    vm = vm_factory(image=replace(cirros, ssh_key=None), meta_data={"public-keys": {}})
    assert vm.run("id -un").stdout == "cirros\n"


@pytest.mark.slow
def test_drives_keep_their_letters(cirros: Image, vm_factory: VMFactory) -> None:
    vm = vm_factory(image=cirros, drives=[Drive(size="24M")])
    assert vm.run("cat /sys/block/vdb/size").stdout == f"{24 * 2048}\n"


@pytest.mark.slow
def test_without_a_seed_it_searches_the_network(cirros: Image, vm_factory: VMFactory) -> None:
    vm = vm_factory(
        image=replace(cirros, seed=False), ready=re.compile(r"failed 1/20: up [\d.]+\. request failed"), start="boot"
    )
    vm.console.expect(r"checking http://169\.254\.169\.254/2009-04-04/instance-id\r\n")
    assert not any(planned.id == "disk-seed" for planned, _ in vm._plan.drives)


def test_what_was_said_to_look_for_no_seed(cirros: Image, vm_factory: VMFactory) -> None:
    with pytest.raises(
        SpecError, match="image 'cirros' looks for no seed; vm\\(seed=True\\) gives it one all the same"
    ):
        vm_factory(image=replace(cirros, seed=False), user_data="#!/bin/sh\n")
    with pytest.raises(SpecError, match="looks for no seed"):
        vm_factory(user_data="#!/bin/sh\n")


def test_without_a_network_there_is_the_console(cirros: Image, vm_factory: VMFactory) -> None:
    vm = vm_factory(image=cirros, nics=[])
    assert vm.started is not None
    assert vm.started.reason.startswith("image 'cirros' has no way in as root that is known")
    vm.console.login()
    assert vm.console.run("sudo id -u").stdout == "0\n"
    with pytest.raises(SpecError, match="nothing is known about SSH in image 'cirros', or it cannot be reached"):
        vm.ssh.run("true")


def test_a_start_that_fails_is_told(cirros: Image, vm_factory: VMFactory) -> None:
    with pytest.raises(CommandError, match=r"status 3 \(SSH, as cirros\): 'echo failed; exit 3'") as failure:
        vm_factory(image=replace(cirros, settled="echo failed; exit 3"), start="boot")
    assert failure.value.stdout == "failed\n"
    assert failure.value.__notes__ == ["This is how image 'cirros' says that the guest's start has failed (settled=)."]
