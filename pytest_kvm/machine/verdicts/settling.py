"""Making sure that all the guest has printed until now is here.

The kernel prints in order: what it said before a message that we let it print has come when that one has.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.result import decoded
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.guest.console.serial import SerialPort
    from pytest_kvm.machine.vm import VM

# Seconds for a message to come; a guest that runs has it there in milliseconds.
_PATIENCE = 2.0
_NEWS_PATIENCE = 0.5
# After the last line of a report that the guest is still printing; it ends by itself when nothing more comes.
_REPORT_PATIENCE = 2.0


def settle(vm: VM) -> str:
    """Take in all that the guest has printed; return why its last words may be missing, "" if they cannot be.

    Waits a moment only, whatever state the machine is in.
    """
    if vm.serial is None or not vm.running:
        return ""
    doubt = "" if vm.watch.failed or _stopped(vm) else _marked(vm, vm.serial)
    vm._io.call(vm.watcher.receive)
    vm.watch.wait_only(lambda: not vm.watcher.pending, Deadline(_REPORT_PATIENCE))
    return doubt


def _stopped(vm: VM) -> bool:
    """Return whether the virtual CPUs stand still: then nothing more is printed, nor can be."""
    last = next((event["event"] for event in reversed(vm.qmp.events) if event["event"] in ("STOP", "RESUME")), "RESUME")
    return bool(last == "STOP")


def _marked(vm: VM, serial: SerialPort) -> str:
    """Let the kernel print a mark, and wait for it."""
    if vm.unmarked:
        return vm.unmarked
    mark = f"pytest-kvm:{secrets.token_hex(8)}"
    deadline = Deadline(_PATIENCE)
    with serial.marked(mark.encode()) as seen:
        try:
            trouble = _print(vm, mark, deadline)
            if not trouble and not vm.watch.wait_for(seen, deadline):
                # Its console may show no messages of the kernel's at all: then it will not show the next one either.
                trouble = vm.unmarked = f"its kernel's messages do not reach the console within {_PATIENCE:g} s"
        except MachineError as error:
            # A machine that goes away loses its channels a moment before that is known.
            vm.watch.wait_only(lambda: vm.watch.failed, Deadline(_NEWS_PATIENCE))
            trouble = vm.unmarked = str(error)
    return "" if vm.watch.failed else trouble


def _print(vm: VM, mark: str, deadline: Deadline) -> str:
    """Let the guest's kernel print the mark; return why that is not possible."""
    patience = deadline.remaining() or 0.0
    if vm.shell is not None and vm.shell.ready:
        return "" if vm.shell.print_to_console(mark, patience) else "its kernel takes no messages"
    image = vm._image
    if image is None or not image.root:
        return "nobody is there to let its kernel print a mark"
    if image.ssh_user is not None and not vm.ssh.connected:
        return "nobody is connected to it"
    command = f"sh -c 'echo \"<1>{mark}\" >/dev/kmsg'"
    command = command if vm.user == "root" else f"sudo -n {command}"
    ended = vm._execute(command, command, None, Deadline(patience))  # vm.run's are what the test has run
    if ended.status is None:
        raise MachineError(f"its kernel has taken no message within {patience:g} s")
    return "" if ended.status == 0 else f"its kernel takes no messages: {decoded(ended.err).strip()}"
