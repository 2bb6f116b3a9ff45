"""A kernel's counters, in the guest: set to zero, and fetched. The kernel's Documentation/dev-tools/gcov.rst."""

from __future__ import annotations

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.runner import Runner
from pytest_kvm.kernel.debugfs import DEBUGFS, mounted
from pytest_kvm.waiting import Usual

_GCOV = f"{DEBUGFS}/gcov"
_MOUNTED = f"{mounted('gcov')}; test -d {_GCOV} || exit 3;"
# The files have no size until they are read: tar would take none of them.
_FETCH = (
    "folder=$(mktemp -d) || exit;"
    f" cp -dR {_GCOV}/. $folder && tar -c -C $folder .; status=$?; rm -rf $folder; exit $status"
)
_NONE = 3
_PATIENCE = Usual(60)


def reset(vm: Runner) -> bool:
    """Set all counters to zero; return False for a kernel without any. Raises MachineError."""
    return _carry_out(vm, f"echo 1 >{_GCOV}/reset") is not None


def fetch(vm: Runner) -> bytes | None:
    """Return a tar archive of all counters, None for a kernel without any. Raises MachineError."""
    return _carry_out(vm, _FETCH)


def _carry_out(vm: Runner, script: str) -> bytes | None:
    done = vm.run(f"{_MOUNTED} {script}", check=False, text=False, timeout=_PATIENCE)
    if done.returncode == _NONE:
        return None
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise MachineError(f"VM {vm.name!r}: its counters of gcov cannot be reached: {why or done.returncode}")
    return done.stdout
