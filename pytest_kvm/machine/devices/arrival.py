"""Waiting until the guest has what was plugged in, with its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kvm.errors import CommandTimeout, HotplugError
from pytest_kvm.machine.devices.places import PAUSE, identifiers, place_of
from pytest_kvm.machine.rooted import run_as_root
from pytest_kvm.waiting import Deadline

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

# The kernel has a new device before anybody loads its driver, which is for udev or mdev to do, where there is one.
_ON_PCI = """
until [ -e {folder} ]; do {pause}; done
[ -e {folder}/driver ] || modprobe -qb "$(cat {folder}/modalias)"
:
"""
# Its driver shows a moment before it has it working; a device that no driver takes is not waited for long.
_VIRTIO = """
until set -- {folder}/virtio*/status && [ -e "$1" ]; do {pause}; done
each=${{1%/status}}
[ -e $each/driver ] || modprobe -qb "$(cat $each/modalias)"
left={tries}
while [ ! -e $each/driver ] && [ $left -gt 0 ]; do left=$((left - 1)); {pause}; done
[ ! -e $each/driver ] || until [ $(($(cat $each/status) & 4)) = 4 ]; do {pause}; done
"""
_TRIES = 100
_CPUS = "ls -d /sys/devices/system/cpu/cpu[0-9]* | sed 's/.*cpu//' | sort -n"
_POSSIBLE = "/sys/devices/system/cpu/possible"
_CPU = """
until now=$({cpus}) && [ "$now" != "{before}" ]; do {pause}; done
for each in $now; do
    case " {known} " in *" $each "*) ;; *)
        f=/sys/devices/system/cpu/cpu$each/online
        [ ! -e $f ] || [ "$(cat $f)" = 1 ] || echo 1 >$f
        echo $each
    esac
done
"""
_BLOCKS = "ls -d /sys/devices/system/memory/memory[0-9]* | wc -l"
# Memory that may be taken away again (Documentation/admin-guide/mm/memory-hotplug.rst).
_MOVABLE = "echo online_movable >/sys/devices/system/memory/auto_online_blocks"
_MEMORY = """
until [ $({blocks}) -ge {wanted} ]; do {pause}; done
for each in /sys/devices/system/memory/memory[0-9]*; do
    [ "$(cat $each/state)" != offline ] || echo online_movable >$each/state
done
"""


def await_on_pci(vm: VM, name: str, deadline: Deadline) -> None:
    """Wait for a device of PCI, and for its driver where the guest has one; raises HotplugError."""
    folder = place_of(vm, name).folder
    script = _ON_PCI.format(folder=folder, pause=PAUSE)
    if identifiers(vm)[name].startswith("virtio-"):
        script += _VIRTIO.format(folder=folder, pause=PAUSE, tries=_TRIES)
    _await(vm, name, script, deadline)


def cpus(vm: VM, name: str, deadline: Deadline) -> list[int]:
    """Return the numbers of the processors that the guest has; raises HotplugError when it has room for no other."""
    *found, possible = run_as_root(vm, f"{_CPUS}; cat {_POSSIBLE}", deadline).stdout.split()
    if int(possible.rpartition("-")[2]) < len(found):
        raise HotplugError(
            f"VM {vm.name!r}: the guest's kernel has no room for the processor {name!r}: possible is {possible} "
            "(Linux since 6.9 knows only processors that are there at boot, unless it sees a hypervisor, which an "
            "emulated machine does not show it)",
            device=name,
        )
    return [int(number) for number in found]


def await_cpu(vm: VM, name: str, before: list[int], deadline: Deadline) -> int:
    """Wait for one more processor, let the guest use it, and return its number; raises HotplugError."""
    known = "\n".join(map(str, before))
    script = _CPU.format(cpus=_CPUS, before=known, known=" ".join(map(str, before)), pause=PAUSE)
    return int(_await(vm, name, script, deadline))


def memory_blocks(vm: VM, deadline: Deadline) -> int:
    """Return how many blocks of memory the guest has; those that come go into use from now on, as movable."""
    return int(run_as_root(vm, f"{_MOVABLE}; {_BLOCKS}", deadline).stdout)


def await_memory(vm: VM, name: str, blocks: int, deadline: Deadline) -> None:
    """Wait until the guest has so many blocks of memory, and let it use them; raises HotplugError."""
    _await(vm, name, _MEMORY.format(blocks=_BLOCKS, wanted=blocks, pause=PAUSE), deadline)


def load(vm: VM, modules: str, deadline: Deadline) -> None:
    """Load modules that no device asks for, where the guest has them and nobody else does it."""
    run_as_root(vm, f"for each in {modules}; do modprobe -q $each; done", deadline)


def _await(vm: VM, name: str, script: str, deadline: Deadline) -> str:
    try:
        done = run_as_root(vm, script, deadline)
    except CommandTimeout as error:
        raise HotplugError(
            f"VM {vm.name!r}: the guest does not have {name!r} {deadline.seconds or 0.0:g} s after it was plugged in; "
            "it stays plugged in",
            device=name,
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        raise HotplugError(f"VM {vm.name!r}: the guest does not take {name!r}: {said}", device=name)
    return done.stdout.strip()
