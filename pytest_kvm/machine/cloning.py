"""How a machine begins with a template: as its clone, or with a boot where there can be none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_kvm.errors import MachineError
from pytest_kvm.machine.library import Library
from pytest_kvm.machine.starting import Boot, Refused, Started, clone
from pytest_kvm.machine.state import Damaged
from pytest_kvm.machine.templates import Busy, Impossible, OpenTemplate
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.plan import PlannedDrive
from pytest_kvm.visible import visible
from pytest_kvm.waiting import Deadline

_log = logging.getLogger("pytest_kvm")


@dataclass(frozen=True, kw_only=True)
class FromTemplate:
    """Begin as a clone of a template, which is made when it is not there.

    ``cold`` are the template's drives, ``later`` those that are plugged into the clone; ``builder`` makes the machine
    that becomes the template, ``key_now`` is its key as files are then. What cannot be cloned is booted, unless a clone
    was ``demanded``; and so is, the first time in a session, what is ``rare``.
    """

    library: Library
    key: str
    cold: Sequence[PlannedDrive]
    later: Sequence[PlannedDrive]
    builder: Callable[[], VM]
    key_now: Callable[[], str]
    demanded: bool
    rare: str | None

    @property
    def at_hand(self) -> bool:
        """Whether the template is there: nothing has to be booted."""
        try:
            template = self.library.find(self.key)
        except Impossible:  # start() says why
            return False
        if template is not None:
            template.close()
        return template is not None

    def start(self, vm: VM, *, wait: bool) -> Started:
        """Start the machine; it is ready then, whatever ``wait`` says, unless it has to be booted."""
        if self.rare and not self.demanded and not self.at_hand and self.library.first_time(self.key):
            return self._boot(vm, self.rare, wait=wait)
        try:
            return self._clone(vm)
        except (Impossible, Busy, Refused, Damaged) as error:
            trouble = str(error)
        if self.demanded:
            raise MachineError(f"vm(start='clone'): VM {vm.name!r} cannot be cloned: {trouble}")
        self.library.tell(vm.name, trouble)
        return self._boot(vm, trouble, wait=wait)

    def _boot(self, vm: VM, reason: str, *, wait: bool) -> Started:
        _log.info("VM %r is booted: %s", vm.name, visible(reason))
        vm._revive()
        return Boot([*self.cold, *self.later], reason).start(vm, wait=wait)

    def _clone(self, vm: VM) -> Started:
        refusals = 0
        while True:
            template = self._template(vm)
            try:
                started = clone(vm, template.state, cold=self.cold, later=self.later)
            except (Refused, Damaged) as error:
                vm._revive()  # the template's machine is made in its share of the budget
                _log.warning("VM %r: its template is no good: %s", vm.name, error)
                self.library.discard(template)
                refusals += 1
                if refusals == 2:  # this one was new
                    self.library.give_up(self.key, error)
                    raise
            except BaseException:
                template.close()
                raise
            else:
                vm._template = template
                return started

    def _template(self, vm: VM) -> OpenTemplate:
        found = self.library.find(self.key)
        if found is not None:
            return found
        return self.library.make(self.key, self.builder, self.cold, Deadline(vm._patience), key_now=self.key_now)
