"""Setting right the clone of a guest that has not our shell: by a small program of ours, as root.

A clone's clock stands at the moment in which its template was saved, and its random numbers are those of all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.result import CompletedCommand
from pytest_kvm.guest.shell.resume import CLOSE_ENOUGH, TRIES, request
from pytest_kvm.images.builtin.programs import RESUME, programs

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.waiting import Deadline

# Not in /run or /tmp, from which some guests run nothing.
_FOLDER = "/var/lib/pytest-kvm"
_PROGRAM = f"{_FOLDER}/resume"


def needs_repair(vm: VM) -> bool:
    """Return whether clones of the machine are set right by ``repair``."""
    return vm.shell is None and vm._image is not None and vm._image.root


def repair(vm: VM, deadline: Deadline) -> None:
    """Set the guest's clock, and feed and reseed its random number generator.

    The program is put into the guest when it is not there yet. Raises MachineError.
    """
    for _ in range(TRIES):
        data, answer = request()
        result = _ask(vm, data, deadline)
        if not result.stdout.startswith(answer):
            _install(vm, deadline)
            data, answer = request()
            result = _ask(vm, data, deadline)
        if not result.stdout.startswith(answer):
            said = result.stderr.decode(errors="backslashreplace").strip() or f"status {result.returncode}"
            raise MachineError(f"VM {vm.name!r}: its clock could not be set by {_PROGRAM} ({vm.via}): {said}")
        if result.seconds < CLOSE_ENOUGH:
            return


def _ask(vm: VM, data: bytes, deadline: Deadline) -> CompletedCommand[bytes]:
    # It ends with its input, and status 1; what it answered counts.
    return vm.run(_as_root(vm, _PROGRAM), input=data, check=False, text=False, timeout=deadline.remaining())


def _install(vm: VM, deadline: Deadline) -> None:
    script = f"mkdir -p {_FOLDER} && cat >{_PROGRAM} && chmod 700 {_PROGRAM}"
    vm.run(_as_root(vm, f"sh -c '{script}'"), input=programs()[RESUME], timeout=deadline.remaining())


def _as_root(vm: VM, command: str) -> str:
    return command if vm.user == "root" else f"sudo -n {command}"
