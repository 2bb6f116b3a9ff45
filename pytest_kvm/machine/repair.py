"""Setting right the clone of a guest that has not our shell: by a small program of ours, as root.

A clone's clock stands at the moment in which its template was saved, and its random numbers are those of all others.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.shell.resume import CLOSE_ENOUGH, TRIES, request
from pytest_kvm.images.builtin.programs import RESUME, programs

if TYPE_CHECKING:
    from pytest_kvm.guest.ssh.session import Read, Send
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.waiting import Deadline

# Not in /run or /tmp, from which some guests run nothing.
_FOLDER = "/var/lib/pytest-kvm"
_PROGRAM = f"{_FOLDER}/resume"
_PIECE = 4096
_MOST = 64 << 10  # bytes, of which each answer has eight


def needs_repair(vm: VM) -> bool:
    """Return whether clones of the machine are set right by ``repair``."""
    return vm.shell is None and vm._image is not None and vm._image.root


def repair(vm: VM, deadline: Deadline) -> None:
    """Set the guest's clock, and feed and reseed its random number generator.

    The program is put into the guest when it is not there yet. Raises MachineError.
    """
    ask = _in_one_go if vm._image is not None and vm._image.ssh_user is not None else _again_and_again
    said = ask(vm, deadline)
    if said is not None:
        _install(vm, deadline)
        said = ask(vm, deadline)
    if said is not None:
        raise MachineError(f"VM {vm.name!r}: its clock could not be set by {_PROGRAM} ({vm.via}): {said}")


def _in_one_go(vm: VM, deadline: Deadline) -> str | None:
    """Ask until an answer comes quickly enough for the clock to be right; return what the guest says if none comes.

    The program is started once, over SSH: under emulation, sudo alone takes half a second.
    """
    answers: queue.Queue[bytes] = queue.Queue()
    answered = False

    def produce(send: Send) -> None:
        nonlocal answered
        for _ in range(TRIES):
            began = time.monotonic()
            data, wanted = request()
            send(data)
            if not _came(answers, wanted, deadline):
                return
            answered = True
            if time.monotonic() - began < CLOSE_ENOUGH:
                return

    def consume(read: Read) -> None:
        size = 0
        while size < _MOST and (data := read(_PIECE)):
            size += len(data)
            answers.put(data)
        answers.put(b"")

    # It ends with its input, and status 1; what it answered counts.
    session = vm.ssh.carry_out(
        _as_root(vm, _PROGRAM), "the setting of its clock", deadline, produce=produce, consume=consume
    )
    if not session.complete:
        session.stop()
    return None if answered else _said(bytes(session.err), session.status)


def _came(answers: queue.Queue[bytes], wanted: bytes, deadline: Deadline) -> bool:
    """Return whether an answer comes, before the end of the output and the deadline."""
    found = b""
    while wanted not in found:
        try:
            data = answers.get(timeout=deadline.remaining())
        except queue.Empty:
            return False
        if not data:
            return False
        found += data
    return True


def _again_and_again(vm: VM, deadline: Deadline) -> str | None:
    """The same with one command for each question, where there is no conversation with one."""
    for _ in range(TRIES):
        data, wanted = request()
        result = vm.run(_as_root(vm, _PROGRAM), input=data, check=False, text=False, timeout=deadline.remaining())
        if wanted not in result.stdout:
            return _said(result.stderr, result.returncode)
        if result.seconds < CLOSE_ENOUGH:
            return None
    return None


def _said(stderr: bytes, status: int) -> str:
    return stderr.decode(errors="backslashreplace").strip() or f"status {status}"


def _install(vm: VM, deadline: Deadline) -> None:
    script = f"mkdir -p {_FOLDER} && cat >{_PROGRAM} && chmod 700 {_PROGRAM}"
    vm.run(_as_root(vm, f"sh -c '{script}'"), input=programs()[RESUME], timeout=deadline.remaining())


def _as_root(vm: VM, command: str) -> str:
    return command if vm.user == "root" else f"sudo -n {command}"
