"""Running a script in the guest as root, whoever its user is."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_kvm.guest.result import CompletedCommand
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM


def run_as_root(vm: VM, script: str, deadline: Deadline) -> CompletedCommand[str]:
    """Run a shell script as root and return its result, whatever its status; raises CommandTimeout, MachineError."""
    command = script if vm.user == "root" else f"sudo -n sh -c {shlex.quote(script)}"
    return vm.run(command, check=False, timeout=deadline.remaining())
