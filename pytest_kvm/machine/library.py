"""The templates that a session works with: found in the store, or made by booting a machine once."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import MachineError
from pytest_kvm.guest.console.screen import shows_login_prompt
from pytest_kvm.host.cache import CACHE_VARIABLE
from pytest_kvm.host.memory import available
from pytest_kvm.host.room import FULL
from pytest_kvm.images.progress import Report, say_nothing
from pytest_kvm.machine.evidence import take_screen
from pytest_kvm.machine.readiness import wait_ready, wait_settled
from pytest_kvm.machine.repair import needs_repair, repair
from pytest_kvm.machine.saving import complete, guest_of, save_devices
from pytest_kvm.machine.starting import Boot
from pytest_kvm.machine.templates import Impossible, OpenTemplate, Templates
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.memory import backends
from pytest_kvm.qemu.migration import NotSaved, why_blocked
from pytest_kvm.qemu.plan import PlannedDrive
from pytest_kvm.qemu.ram import RamFiles
from pytest_kvm.waiting import Deadline

_log = logging.getLogger("pytest_kvm")
# So many templates are kept open beside those that machines use: each costs an old QEMU's session its RAM.
_KEPT = 4
# With less memory than that to spare, it is only the one used last.
_RESERVE = 2 << 30
# A guest that is ready has its shell, and a login prompt where there is one, a moment later.
_SETTLE_PATIENCE = 10.0


class Library:
    """The session's open templates; usable from any thread.

    ``limit`` is what the store may take, in bytes; ``report`` is told what makes a session slow.
    """

    def __init__(self, store: Templates, *, limit: int, report: Report = say_nothing) -> None:
        self._store = store
        self._report = report
        self._limit = limit
        # The one used last is the last one.
        self._open: dict[str, OpenTemplate] = {}
        # Why a machine cannot be cloned, by its template's key: it is not tried again in this session.
        self._impossible: dict[str, MachineError] = {}
        self._asked: set[str] = set()
        self._told: set[str] = set()
        self._grown = False
        self._lock = threading.Lock()

    def find(self, key: str) -> OpenTemplate | None:
        """Return the template, to be closed by the caller, if there is one; nothing is booted. Raises Impossible."""
        with self._lock:
            template = self._open.pop(key, None) or self._store.open(key)
            if template is None:
                return None
            self._open[key] = template
            for other in list(self._open)[: -(_KEPT if available() > _RESERVE else 1)]:
                self._drop(other)
            return template.duplicate()

    def _drop(self, key: str) -> None:
        template = self._open.pop(key)
        template.state.close()
        template.close()

    def first_time(self, key: str) -> bool:
        """Return whether the session asks this for the first time."""
        with self._lock:
            known = key in self._asked
            self._asked.add(key)
            return not known

    def discard(self, template: OpenTemplate) -> None:
        """Close a template that is no good, and remove it."""
        with self._lock:
            if template.key in self._open and self._open[template.key].state is template.state:
                self._drop(template.key)
        self._store.condemn(template)

    def tell(self, name: str, trouble: str) -> None:
        """Show, once in a session, what makes it slow: this machine is booted, and so are others like it."""
        with self._lock:
            known = trouble in self._told
            self._told.add(trouble)
        if not known:
            self._report(f"VM {name!r} is booted, as it will be in each test: {trouble}")

    def give_up(self, key: str, reason: MachineError) -> None:
        """Make no template with this key any more, for a reason."""
        self._impossible[key] = reason

    def make(
        self,
        key: str,
        builder: Callable[[], VM],
        cold: Sequence[PlannedDrive],
        deadline: Deadline,
        *,
        key_now: Callable[[], str],
    ) -> OpenTemplate:
        """Return the template, to be closed by the caller, made of a machine unless somebody else has just made it.

        ``key_now`` tells, when it is made, whether it is still what the key says. Raises Impossible, Busy when somebody
        else takes too long, and what a boot raises.
        """
        if key in self._impossible:
            raise Impossible(str(self._impossible[key]))
        with self._store.making(key, deadline):
            found = self.find(key)
            if found is not None:
                return found
            try:
                with _closing(builder()) as vm, _leaving_failures(vm):
                    self._build(key, vm, cold, key_now)
            except Impossible as error:
                self.give_up(key, error)
                raise
            made = self.find(key)
        if made is None:
            raise Impossible("its template was removed in the moment in which it was made")
        self._grown = True
        self._prune()
        return made

    def _prune(self) -> None:
        try:
            self._store.prune(self._limit)
        except OSError as error:
            _log.warning("the templates in %s are not pruned: %s", self._store.directory, error)

    def _build(self, key: str, vm: VM, cold: Sequence[PlannedDrive], key_now: Callable[[], str]) -> None:
        with contextlib.closing(RamFiles.empty(backends(vm.spec).values())) as ram:
            vm._plan = replace(vm._plan, ram=ram.shared())
            booting = Deadline(vm._patience)
            Boot(cold).start(vm, wait=False)
            blocked = why_blocked(vm.qmp)
            if blocked:
                raise Impossible(f"QEMU cannot save it: {blocked}")
            wait_settled(vm, wait_ready(vm, vm._ready, booting))
            seconds = booting.elapsed
            _settle(vm)
            _make_repairable(vm, Deadline(vm._patience))
            try:
                with self._store.new(key) as into:
                    self._save(into, vm, ram, seconds)
                    if key_now() != key:
                        raise Impossible("one of its files was changed while its template was made")
            except NotSaved as error:
                raise Impossible(str(error)) from error
            except OSError as error:
                place = self._store.directory
                help_ = f" ({CACHE_VARIABLE} names another place)" if error.errno in FULL else ""
                raise Impossible(f"its template could not be written to {place}: {error.strerror}{help_}") from error

    def _save(self, into: Path, vm: VM, ram: RamFiles, seconds: float) -> None:
        deadline = Deadline(vm._patience)
        shell = vm.shell
        with shell.held(deadline) if shell is not None else contextlib.nullcontext():
            save_devices(vm.qmp, vm._io, folder=vm._folder, into=into, deadline=deadline)
            lanes = shell.saved() if shell is not None else []
        guest = guest_of(vm, shell.ports if shell is not None else [], lanes, seconds)
        vm._end_run()
        complete(into, guest, ram=ram, console=vm.serial, drives=vm._plan.drives, folder=vm._folder, binary=vm._binary)

    def close(self) -> None:
        """Stop using all templates."""
        with self._lock:
            for key in list(self._open):
                self._drop(key)
        if self._grown:  # what was in use then can go now
            self._prune()


@contextlib.contextmanager
def _leaving_failures(vm: VM) -> Iterator[None]:
    """Let the machine that becomes a template leave something only when a test fails by it."""
    leave, vm.leave = vm.leave, None
    try:
        yield
    except Impossible:
        raise
    except BaseException as error:
        vm.leave = leave
        if isinstance(error, MachineError):
            take_screen(vm)
        raise


@contextlib.contextmanager
def _closing(vm: VM) -> Iterator[VM]:
    """Close the machine at the end of the block; what did not come up may be somebody's to look at."""
    try:
        yield vm
    except Impossible:
        vm.close()
        raise
    except MachineError:
        vm.abandon()
        raise
    except BaseException:
        vm.close()
        raise
    vm.close()


def _make_repairable(vm: VM, deadline: Deadline) -> None:
    if needs_repair(vm):
        try:
            repair(vm, deadline)
        except MachineError as error:
            vm.watch.check()
            raise Impossible(f"what would set its clones right does not work in its guest: {error}") from error
    if vm._ssh is not None:
        vm._ssh.close()  # in a clone there is nobody at its other end


def _settle(vm: VM) -> None:
    """Let a machine that is ready come to rest: each of its clones would have to do what it has not done yet."""
    deadline = Deadline(_SETTLE_PATIENCE)
    serial, image, shell = vm.serial, vm._image, vm.shell
    if shell is not None and not vm.watch.wait_for(lambda: shell.ready, deadline):
        raise Impossible("its guest does not serve our shell")
    if image is not None and image.login is not None and serial is not None:
        vm.watch.wait_for(lambda: shows_login_prompt(serial.since(0)), deadline)
