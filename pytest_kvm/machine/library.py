"""The templates that a session works with: found in the store, or made by booting a machine once."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.console import LOGIN_PROMPT
from pytest_kvm.machine.readiness import wait_ready
from pytest_kvm.machine.saving import complete, guest_of, save_devices
from pytest_kvm.machine.starting import Boot, Refused, Started, clone
from pytest_kvm.machine.state import Damaged
from pytest_kvm.machine.templates import Impossible, OpenTemplate, Templates
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.migration import NotSaved, why_blocked
from pytest_kvm.qemu.plan import PlannedDrive
from pytest_kvm.qemu.ram import RamFile
from pytest_kvm.spec.size import parse_memory
from pytest_kvm.waiting import Deadline

_log = logging.getLogger("pytest_kvm")
# Old QEMUs need a copy of the RAM in memory: of so many templates it is kept.
_RAM_KEPT = 4
# A login prompt comes a moment after the machine is ready, where there is one.
_PROMPT_PATIENCE = 5.0


class Library:
    """The session's open templates; usable from any thread.

    ``limit`` is what the store may take, in bytes.
    """

    def __init__(self, store: Templates, *, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._open: dict[str, OpenTemplate] = {}
        # Why no template could be made, by its key: it is not tried again in this session.
        self._impossible: dict[str, Impossible] = {}
        self._lock = threading.Lock()

    def find(self, key: str) -> OpenTemplate | None:
        """Return the template if there is one; nothing is booted."""
        with self._lock:
            template = self._open.pop(key, None) or self._store.open(key)
            if template is not None:
                self._open[key] = template  # the one used last is the last one
                for other in list(self._open.values())[:-_RAM_KEPT]:
                    other.state.close()
            return template

    def discard(self, template: OpenTemplate) -> None:
        """Stop using a template that is no good, and remove it."""
        with self._lock:
            if self._open.get(template.key) is template:
                del self._open[template.key]
        self._store.condemn(template)

    def make(self, key: str, builder: VM, cold: Sequence[PlannedDrive], deadline: Deadline) -> OpenTemplate:
        """Return the template, made of a machine that has not been started, unless somebody else has just made it.

        The machine is closed in any case. Raises Impossible, and what a boot raises.
        """
        with contextlib.closing(builder), self._store.making(key, deadline):
            found = self.find(key)
            if found is not None:
                return found
            if key in self._impossible:
                raise self._impossible[key]
            try:
                with contextlib.closing(RamFile.empty(parse_memory(builder.spec.memory).size)) as ram:
                    self._build(key, builder, cold, ram)
                template = self._opened(key)
            except Impossible as error:
                self._impossible[key] = error
                raise
            self._store.prune(self._limit)
            return template

    def _opened(self, key: str) -> OpenTemplate:
        template = self.find(key)
        if template is None:
            raise Impossible("its template was removed in the moment in which it was made")
        return template

    def _build(self, key: str, builder: VM, cold: Sequence[PlannedDrive], ram: RamFile) -> None:
        builder._plan = replace(builder._plan, ram=ram.shared())
        booting = Deadline(builder._patience)
        Boot(cold).start(builder, wait=False)
        blocked = why_blocked(builder.qmp)
        if blocked:
            raise Impossible(f"QEMU cannot save it: {blocked}")
        wait_ready(builder, builder._ready, booting)
        seconds = builder._patience - (booting.remaining() or 0.0)
        _settle(builder)
        began = Deadline(builder._patience)
        try:
            with self._store.new(key) as into, contextlib.ExitStack() as stack:
                shell = builder.shell
                lanes = stack.enter_context(shell.held()) if shell is not None else []
                save_devices(builder.qmp, builder._io, folder=builder._folder, into=into, deadline=began)
                stack.close()
                builder._end_run()
                complete(
                    into,
                    guest_of(builder, shell.ports if shell is not None else [], lanes, seconds),
                    ram=ram,
                    console=builder.serial,
                    drives=builder._plan.drives,
                    folder=builder._folder,
                    binary=builder._binary,
                    final=self._store.directory / key,
                )
        except NotSaved as error:
            raise Impossible(str(error)) from error
        except OSError as error:
            raise Impossible(f"its template could not be written: {error}") from error

    def close(self) -> None:
        """Stop using all templates."""
        with self._lock:
            templates, self._open = list(self._open.values()), {}
        for template in templates:
            template.close()


def _settle(machine: VM) -> None:
    """Let a machine that is ready come to rest: each of its clones would have to do what it has not done yet."""
    serial, image = machine.serial, machine._image
    if image is None or serial is None:
        return
    if image.login is not None:
        prompt = re.compile(LOGIN_PROMPT.encode())
        machine.watch.wait_for(lambda: bool(prompt.search(serial.since(0))), Deadline(_PROMPT_PATIENCE))


@dataclass(frozen=True, kw_only=True)
class FromTemplate:
    """Begin as a clone of a template, which is made when it is not there.

    ``cold`` are the template's drives, ``later`` those that are plugged into the clone; ``builder`` makes the machine
    that becomes the template. What cannot be cloned is booted, unless a clone was ``demanded``.
    """

    library: Library
    key: str
    cold: Sequence[PlannedDrive]
    later: Sequence[PlannedDrive]
    builder: Callable[[], VM]
    demanded: bool

    @property
    def at_hand(self) -> bool:
        """Whether the template is there: nothing has to be booted."""
        return self.library.find(self.key) is not None

    def start(self, vm: VM, *, wait: bool) -> Started:
        """Start the machine; it is ready then, whatever ``wait`` says, unless it has to be booted."""
        trouble: MachineError
        for _ in range(2):  # a template that is no good is made once more
            try:
                template = self.library.find(self.key) or self.library.make(
                    self.key, self.builder(), self.cold, Deadline(vm._patience)
                )
            except Impossible as error:
                trouble = error
                break
            try:
                return clone(vm, template.state, cold=self.cold, later=self.later)
            except (Refused, Damaged) as error:
                _log.warning("VM %r: its template is made again: %s", vm.name, error)
                self.library.discard(template)
                trouble = error
        if self.demanded:
            raise MachineError(f"vm(start='clone'): VM {vm.name!r} cannot be cloned: {trouble}") from trouble
        _log.warning("VM %r is booted: %s", vm.name, trouble)
        vm._revive()
        return Boot([*self.cold, *self.later], str(trouble)).start(vm, wait=wait)
