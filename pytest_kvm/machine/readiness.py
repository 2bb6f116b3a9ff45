"""When a machine is ready, by what the test or its image says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pytest_kvm.errors import BootTimeout, CommandError, CommandTimeout
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.guest.console.screen import shows_login_prompt
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.result import shorten
from pytest_kvm.guest.shell.shell import Shell
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.machine.progress import Patience
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

Ready = str | re.Pattern[str]


class Bootable(Protocol):
    """What readiness needs of a machine."""

    name: str
    watch: Watch
    serial: SerialPort | None
    shell: Shell | None
    accel: str

    @property
    def elastic(self) -> bool:
        """Whether it may take longer as long as it gets on."""
        ...

    @property
    def qmp(self) -> QMP:
        """The QMP session."""
        ...

    @property
    def pid(self) -> int:
        """QEMU's process."""
        ...

    @property
    def ssh(self) -> SSH:
        """SSH to the guest."""
        ...

    @property
    def agent(self) -> Agent:
        """The guest agent."""
        ...


def wait_ready(vm: Bootable, ready: Ready, deadline: Deadline, *, since: int = 0) -> Deadline:
    """Wait until the machine is ready; ``since`` is the console output, in bytes, to leave out of account.

    One that gets on is given more time where nobody said how much it has. Returns the deadline for what is left to do.
    Raises BootTimeout with what was seen and the console's last lines, or the machine's failure.
    """
    awaited = _wait(vm, ready, deadline, since)
    if awaited is None:
        return deadline
    patience = Patience(vm, deadline.seconds or 0.0)
    while more := patience.more():
        again = _wait(vm, ready, Deadline(more), since)
        if again is None:
            return Deadline(patience.left)
    console = vm.serial.tail() if vm.serial is not None else ""
    raise BootTimeout(
        f"VM {vm.name!r} did not become ready within {patience.spent:g} s "
        f"(waiting for {awaited}; accel={vm.accel}). {patience.verdict()} "
        + (f"Console is at:\n{console}" if console.strip() else "The console shows nothing."),
        timeout=patience.spent,
    )


def _wait(machine: Bootable, ready: Ready, deadline: Deadline, since: int) -> str | None:
    """Wait; return what was waited for, and in vain, when the deadline comes."""
    watch, port, shell = machine.watch, machine.serial, machine.shell
    match ready:
        case "none":
            return None
        case "shell":
            there = shell is not None and watch.wait_for(lambda: shell.ready, deadline)
            return None if there else "its shell"
        case "ssh":
            last_try = machine.ssh.ready(deadline)
            return None if last_try is None else f"SSH, last try: {last_try}"
        case "agent":
            return None if machine.agent.wait(deadline) else "its guest agent"
        case "login":
            there = watch.wait_for(lambda: port is not None and shows_login_prompt(port.since(since)), deadline)
            return None if there else "a login prompt on the console"
        case _:
            pattern = ready if isinstance(ready, re.Pattern) else re.compile(ready)
            there = watch.wait_for(_shows(machine, pattern, since), deadline)
            return None if there else f"{pattern.pattern!r} on the console"


def wait_settled(vm: VM, deadline: Deadline) -> None:
    """Wait until a guest that is ready has finished its start, if its image says how that is known.

    A test that says itself when its machine is ready is not made to wait for more. Raises BootTimeout, CommandError.
    """
    command = vm._image.settled if vm._image is not None else None
    if command is None or vm.spec.ready is not None:
        return
    try:
        vm.run(command, timeout=deadline.remaining())
    except CommandTimeout as error:
        timeout = deadline.seconds or 0.0
        raise BootTimeout(
            f"VM {vm.name!r} did not finish its start within {timeout:g} s (waiting for the end of {command!r}; "
            f"accel={vm.accel}). It said: {shorten(str(error.stdout), 2000)}",
            timeout=timeout,
        ) from error
    except CommandError as error:
        error.add_note(f"This is how image {vm._label!r} says that the guest's start has failed (settled=).")
        raise


def _shows(machine: Bootable, pattern: re.Pattern[str], since: int) -> Callable[[], bool]:
    port = machine.serial

    def look() -> bool:
        return port is not None and bool(pattern.search(port.since(since).decode(errors="backslashreplace")))

    return look
