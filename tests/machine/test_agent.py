"""``vm.agent``: QEMU's guest agent in a real guest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest

from pytest_kvm import (
    VM,
    AgentError,
    BootTimeout,
    Drive,
    GuestPanic,
    Image,
    MachineError,
    QEMUExited,
    SpecError,
    VMFactory,
    VMSpec,
    WaitTimeout,
)
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings
from tests.machine.agents import image_with_agent

Make = Callable[..., VM]


def machines(image: Image, stack: ExitStack) -> Make:
    """Return what makes machines of an image, which end with the stack."""
    launcher = stack.enter_context(closing(Launcher(Settings())))

    def make(**fields: Any) -> VM:
        # All with a disk: they have a template in common.
        spec = VMSpec(image=image, drives=[Drive(size="8M")], **fields)
        return stack.enter_context(closing(launcher.create(spec)))

    return make


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Image]:
    """The guest with the agent, without and with our shell."""
    return {shell: image_with_agent(tmp_path_factory.mktemp("image"), shell=shell) for shell in (False, True)}


@pytest.fixture
def make(images: dict[bool, Image]) -> Iterator[Make]:
    with ExitStack() as stack:
        yield machines(images[True], stack)


@pytest.fixture(scope="module")
def shared_agent(images: dict[bool, Image]) -> Iterator[VM]:
    """One machine for all tests that leave it as it was."""
    with ExitStack() as stack:
        yield machines(images[True], stack)()


def kind(vm: VM) -> str:
    assert vm.started is not None
    return vm.started.kind


# What it does


def test_a_clone_has_it_at_once(shared_agent: VM) -> None:
    assert kind(shared_agent) == "clone"
    shared_agent.agent.ping()
    assert shared_agent.agent.commands() >= {"guest-exec", "guest-fsfreeze-freeze", "guest-set-time"}
    assert shared_agent.agent.execute("guest-get-host-name") == {"host-name": "tiny"}
    assert shared_agent.via == "shell, as root"


def test_commands(shared_agent: VM) -> None:
    result = shared_agent.agent.run("echo $((6 * 7)); cat >&2; exit 3", input="in", check=3)
    assert (result.stdout, result.stderr) == ("42\n", "in")
    with pytest.raises(WaitTimeout, match="and was killed"):
        shared_agent.agent.run("sleep 1234 | sleep 1234", timeout=1)
    assert shared_agent.run("ps | grep -c '[s]leep 1234'", check=1).stdout == "0\n"


def test_files(shared_agent: VM) -> None:
    data = bytes(range(256)) * 1024
    shared_agent.agent.write_file("/tmp/file", data, 0o640)
    assert shared_agent.run("stat -c '%a %s' /tmp/file").stdout == f"640 {len(data)}\n"
    assert shared_agent.agent.read_file("/tmp/file") == data
    shared_agent.run("rm /tmp/file")


def test_time(shared_agent: VM) -> None:
    shared_agent.agent.set_time(86400 * 366)
    assert 86400 * 366 <= shared_agent.agent.time() < 86400 * 367
    shared_agent.agent.set_time()
    assert abs(shared_agent.agent.time() - time.time()) < 10


def test_frozen_file_systems(make: Make) -> None:
    vm = make()
    vm.run("mke2fs -q /dev/vda && mount -t ext2 /dev/vda /mnt")
    with vm.agent.frozen() as number:
        assert number == 1
        assert vm.agent.execute("guest-fsfreeze-status") == "frozen"
        with pytest.raises(AgentError, match="guest-exec has been disabled") as failure:
            vm.agent.run("true")
        assert failure.value.error_class == "CommandNotFound"
        writer = vm.popen("touch /mnt/file && echo written")
        with pytest.raises(WaitTimeout):
            writer.wait(timeout=0.3)
    assert writer.wait(timeout=60) == 0
    assert vm.agent.execute("guest-fsfreeze-status") == "thawed"
    assert vm.agent.run("ls /mnt/file").stdout == "/mnt/file\n"


# What becomes of it


def test_one_that_is_killed(make: Make) -> None:
    vm = make()
    vm.run("mv /opt/ga/start /opt/ga/away")  # init would start another one
    killer = threading.Timer(0.3, vm.run, ["kill -9 $(cat /run/qemu-ga.pid)"])
    killer.start()
    with pytest.raises(AgentError, match="the agent closed its port"):
        vm.agent.run("sleep 1234", timeout=None)
    killer.join()
    with pytest.raises(WaitTimeout, match=r"nothing in the guest has the port org\.qemu\.guest_agent\.0 open"):
        vm.agent.ping(timeout=0.2)
    vm.run("mv /opt/ga/away /opt/ga/start")
    vm.agent.ping(timeout=60)


def test_one_that_is_stopped(make: Make) -> None:
    vm = make()
    vm.agent.ping()
    vm.run("kill -STOP $(cat /run/qemu-ga.pid)")
    with pytest.raises(WaitTimeout, match=r"'guest-get-time' within 0\.3 s: it has its port open, so it runs"):
        vm.agent.execute("guest-get-time", timeout=0.3)
    vm.run("kill -CONT $(cat /run/qemu-ga.pid)")
    assert vm.agent.execute("guest-get-host-name") == {"host-name": "tiny"}


def test_a_panic_ends_the_wait(make: Make) -> None:
    vm = make()
    with vm.expect_panic(), pytest.raises(GuestPanic):
        vm.agent.run("echo c >/proc/sysrq-trigger", timeout=None)


def test_the_end_of_qemu_ends_the_wait(make: Make) -> None:
    vm = make()
    killer = threading.Timer(0.2, vm.kill)
    killer.start()
    with pytest.raises(QEMUExited):
        vm.agent.run("sleep 1234", timeout=None)
    killer.join()
    with pytest.raises(QEMUExited, match="is off"):
        vm.agent  # noqa: B018


def test_it_shuts_the_guest_down(make: Make) -> None:
    vm = make()
    vm.run("printf '#!/bin/sh\\nexec /sbin/poweroff\\n' >/sbin/shutdown && chmod +x /sbin/shutdown")
    assert vm.agent.execute("guest-shutdown") == {}
    vm.wait_for_shutdown()
    assert vm.watcher.findings.untold() == []


def test_it_reboots_the_guest(make: Make) -> None:
    vm = make()
    vm.run("printf '#!/bin/sh\\nexec /sbin/reboot\\n' >/sbin/shutdown && chmod +x /sbin/shutdown")
    with vm.qmp.expect_event("RESET"):
        vm.agent.execute("guest-shutdown", {"mode": "reboot"})
    assert vm.watcher.findings.untold() == []


def test_a_shutdown_that_it_refuses_was_not_asked_for(make: Make) -> None:
    vm = make()
    with pytest.raises(AgentError):
        vm.agent.execute("guest-shutdown", {"mode": "sideways"})
    with vm.expect_shutdown():
        vm.run("/sbin/poweroff; sleep 60", check=False)


def test_snapshots(make: Make) -> None:
    vm = make()
    vm.agent.ping()
    trouble: list[MachineError] = []

    def run() -> None:
        with pytest.raises(MachineError) as failure:
            vm.agent.run("touch /run/begun; sleep 1234", timeout=None)
        trouble.append(failure.value)

    thread = threading.Thread(target=run)
    thread.start()
    vm.run("until [ -e /run/begun ]; do usleep 1000; done")
    state = vm.snapshot()  # in the middle of its questions
    vm.agent.ping()
    vm.restore(state)
    thread.join(20)
    assert len(trouble) == 1
    assert vm.agent.run("pidof sleep | wc -w").stdout == "1\n"


# Without our shell


def test_alone(images: dict[bool, Image]) -> None:
    with ExitStack() as stack:
        vm = machines(images[False], stack)()
        assert kind(vm) == "clone"
        assert vm.via == "guest agent, as root"
        assert vm.run("echo $((6 * 7))").stdout == "42\n"
        assert abs(vm.agent.time() - time.time()) < 5
        assert [word for word in vm.command if "virtio-serial" in word] == ["virtio-serial-pci,id=agent0"]
        assert vm.run("cat /sys/class/virtio-ports/*/name").stdout == "org.qemu.guest_agent.0\n"
        with pytest.raises(SpecError, match="does not offer our shell"):
            vm.popen("true")
        button = threading.Timer(0.3, vm.reboot)
        button.start()
        with pytest.raises(AgentError, match=r"'guest-exec.*': the (agent closed its port|machine was reset)"):
            vm.run("touch /run/before; sleep 1234", timeout=None)
        button.join()
        assert vm.run("ls /run/before", check=False).returncode != 0


def test_one_that_never_comes() -> None:
    with ExitStack() as stack:
        make = machines(replace(tiny_image(), agent=True, ready="agent"), stack)
        with pytest.raises(BootTimeout, match=r"within 1 s \(waiting for its guest agent; accel="):
            make(start="boot", timeout=1)


def test_an_image_without_it(shared: VM, vm_factory: VMFactory) -> None:
    reason = "is not said to run the QEMU guest agent; declare one that does, with agent=True"
    with pytest.raises(SpecError) as failure:
        shared.agent  # noqa: B018
    assert str(failure.value) == f"VM 'shared': image {tiny_image().label!r} {reason}"
    with pytest.raises(SpecError) as failure:
        vm_factory(ready="agent")
    assert str(failure.value) == (
        f"vm(ready='agent'): image {tiny_image().label!r} does not offer the QEMU guest agent, as far as is known"
    )
