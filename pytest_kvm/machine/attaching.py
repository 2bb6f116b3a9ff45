"""How somebody gets at a machine beside the test: console, SSH, QMP and VNC, as commands to be typed."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.guest.console.sharing import SharedConsole
from pytest_kvm.guest.ssh.ssh import PORT as SSH_PORT
from pytest_kvm.qemu.plan import MONITOR

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# In the machine's folder, while somebody may attach.
CONSOLE = "attach"
_LABEL = 10
# Seconds for a QEMU that may be the one that hangs.
_PATIENCE = 5.0
# Of a guest in another one, nothing answers.
_ANSWERING = ("running", "paused")
_STATUS = {"postmigrate": "stopped (its state has been saved)"}
# The guest was made a moment ago, and its address is another one each time: nothing to remember, nothing to compare.
_SSH = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "IdentitiesOnly=yes"),
)


class Attachable:
    """A machine to which others may attach, until it is closed.

    ``console`` is the socket of its console, None without one, or while it has not been described.
    """

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self.console: Path | None = None
        self._stack = ExitStack()

    def close(self) -> None:
        """Let nobody attach any more."""
        self._stack.close()

    def describe(self) -> str:
        """Let others attach; return what the machine is, and how to attach to it, a line for each way.

        Raises MachineError when QEMU does not answer, OSError and HostError when the console cannot be shared.
        """
        vm = self.vm
        if not vm.lives:
            return f"VM {vm.name!r} is off"
        if vm.serial is not None and self.console is None:
            shared = SharedConsole(vm.serial, vm._folder / CONSOLE, io=vm._io)
            self._stack.callback(shared.close)
            self.console = shared.path
        status = self._status()
        lines = [f"VM {vm.name!r} is {_STATUS.get(status, status)}, in {vm._folder}:"]
        lines += [f"  {label:{_LABEL}}{text}" for label, text in self._ways(answers=status in _ANSWERING)]
        return "\n".join(lines)

    def _status(self) -> str:
        try:
            return str(self.vm.qmp.begin("query-status").result(_PATIENCE)["status"])
        except TimeoutError:
            raise MachineError(f"QEMU does not answer within {_PATIENCE:g} s") from None

    def _ways(self, *, answers: bool) -> Iterator[tuple[str, str]]:
        vm = self.vm
        if self.console is not None:
            account = _account(vm)
            yield (
                "console",
                program("pytest-kvm", "pytest_kvm", "attach", str(vm._folder)) + (account and f"  # {account}"),
            )
        if answers:
            with contextlib.suppress(MachineError, SpecError):  # it has no network
                yield from self._ssh()
        if vm._plan.monitor is not None:
            yield "QMP", program("qmp-shell", "qemu.qmp.qmp_shell", str(vm._folder / MONITOR))
        if vm._plan.gdb is not None:
            yield "gdb", str(vm.gdb)
        with contextlib.suppress(MachineError):
            yield from _vnc(vm)
        for nic in vm._plan.nics:
            for forward in nic.forwards:
                with contextlib.suppress(MachineError, SpecError):
                    host, port = vm.forwarded(forward.guest_port, forward.protocol)
                    yield f"{forward.guest_port}/{forward.protocol}", f"{host}:{port}"

    def _ssh(self) -> Iterator[tuple[str, str]]:
        vm, image = self.vm, self.vm._image
        if image is None or image.ssh_user is None:
            return
        host, port = vm.forward(SSH_PORT)
        words = ["ssh", "-p", str(port), *_SSH]
        if image.ssh_key is not None:
            if not Path(image.ssh_key).exists():
                yield "SSH", f"its key {image.ssh_key} is not here"
                return
            words += ["-i", str(image.ssh_key)]
        text = shlex.join([*words, f"{image.ssh_user}@{host}"])
        if image.ssh_key is None and image.password:
            text += f"  # password {image.password}"
        yield "SSH", text


def _account(vm: VM) -> str:
    """Return who logs in on the console, as far as is known."""
    image = vm._image
    if image is None or image.login is None:
        return ""
    return f"login {image.login}, password {image.password}" if image.password else f"login {image.login}"


def _vnc(vm: VM) -> Iterator[tuple[str, str]]:
    about = vm.qmp.execute("query-vnc")
    if about.get("enabled"):
        yield "VNC", f"{about['host']}:{about['service']}" if about.get("family") != "unix" else str(about["service"])


def program(name: str, module: str, *arguments: str) -> str:
    """Return the command line of one of our own programs, which need not be on PATH, to be typed."""
    words = [name] if shutil.which(name) else [sys.executable, "-m", module]
    return shlex.join([*words, *arguments])
