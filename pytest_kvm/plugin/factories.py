"""Making machines for fixtures, and closing all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, Unpack

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.host.room import needing_room
from pytest_kvm.machine.verdicts.settling import settle
from pytest_kvm.plugin.verdicts import Allowances, add_notes, untold
from pytest_kvm.spec.fields import VMFields
from pytest_kvm.spec.vm import VMSpec

if TYPE_CHECKING:
    from pytest_kvm.host.budget import Share
    from pytest_kvm.host.request import Holder
    from pytest_kvm.kernel.ktap.case import Observer
    from pytest_kvm.machine.launcher import Launcher
    from pytest_kvm.machine.snapshots import Snapshot
    from pytest_kvm.machine.vm import VM


class VMFactory(Protocol):
    """The type of the fixtures ``vm_factory`` and ``vm_session_factory``."""

    def __call__(
        self, name: str | None = None, /, *, snapshot: Snapshot | None = None, **fields: Unpack[VMFields]
    ) -> VM:
        """Return a new machine, ready unless ``autostart=False``.

        ``name`` is the machine's (default: ``vm``, ``vm2`` …); ``fields`` are those of the marker. With a
        ``snapshot`` the machine begins where that was taken, is what that machine was, whatever markers say, and
        only ``hostfwd``, ``internet``, ``timeout`` and ``autostart`` may be given. May be called from several
        threads. Raises SpecError, HostError, and MachineError when the machine does not
        come up.
        """
        ...


class Pool:
    """The machines of one scope: made one by one, also from threads, and closed together.

    ``holder`` says who asks for them, ``observer`` is told of cases that run in them; ``start`` is how those begin that
    leave it open, ``kernel`` what those boot that have an image and name no other (None: as they say). ``made`` is told
    of each.
    """

    def __init__(
        self,
        launcher: Callable[[], Launcher],
        *,
        holder: Callable[[], Holder],
        observer: Observer,
        start: str | None = None,
        kernel: str | None = None,
        made: Callable[[VM], None] | None = None,
    ) -> None:
        self._launcher = launcher
        self._holder = holder
        self._observer = observer
        self._start = start
        self._kernel = kernel
        self._made = made
        self._machines: list[VM] = []
        self._names: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()

    def create_all(self, specs: Iterable[VMSpec]) -> list[VM]:
        """Return new machines, which take their shares of the budget together; raises as ``create`` does."""
        specs = list(specs)
        if len(specs) < 2:  # it may have been made ahead
            return [self.create(spec) for spec in specs]
        shares = self._launcher().reserve(specs, self._holder())
        made: list[VM] = []
        try:
            for spec, share in zip(specs, shares, strict=True):
                made.append(self.create(spec, share=share))
        finally:
            for share in shares[len(made) :]:
                share.release()
        return made

    def create(self, spec: VMSpec, snapshot: Snapshot | None = None, *, share: Share | None = None) -> VM:
        """Return a new machine; raises SpecError when its name is taken or a file does not exist.

        Its ``share`` of the budget is taken for it when it is not given.
        """
        with self._lock:
            if spec.name in self._names:
                raise SpecError(
                    f"vm(name={spec.name!r}): there is a machine of this name already",
                    keyword="name",
                    value=spec.name,
                )
            self._names.add(spec.name)
        return self._create(spec, snapshot, share)

    def create_next(self, spec: VMSpec, snapshot: Snapshot | None = None) -> VM:
        """Return a new machine, named after the spec, with a number when that name is taken."""
        with self._lock:
            name, number = spec.name, 1
            while name in self._names:
                number += 1
                name = f"{spec.name}{number}"
            self._names.add(name)
        return self._create(spec.replace(name=name), snapshot)

    def _create(self, spec: VMSpec, snapshot: Snapshot | None, share: Share | None = None) -> VM:
        if self._start is not None and spec.start == "auto" and snapshot is None:
            spec = spec.replace(start=self._start)
        if self._kernel is not None and spec.kernel is None and spec.image is not None and snapshot is None:
            spec = spec.replace(kernel=self._kernel)
        try:
            with needing_room(f"VM {spec.name!r} cannot be made"):
                vm = self._launcher().create(spec, snapshot, holder=self._holder(), share=share)
        except BaseException:
            with self._lock:
                self._names.discard(spec.name)
            raise
        vm.observer = self._observer
        with self._lock:
            closed = self._closed
            if not closed:
                self._machines.append(vm)
        if closed:
            vm.leave = None  # by now another test may run
            vm.close()
            raise MachineError(f"VM '{spec.name}' came up after the test had ended; it was closed")
        if self._made is not None:
            self._made(vm)
        return vm

    @property
    def machines(self) -> list[VM]:
        """Those that are not closed."""
        return [] if self._closed else self.all_machines

    @property
    def all_machines(self) -> list[VM]:
        """All that there were."""
        with self._lock:
            return list(self._machines)

    def close(self, allowances: Allowances) -> None:
        """Close every machine, the last one first; raises the first error, with the others as notes.

        An error is also what they found since the test was judged, unless it is allowed.
        """
        with self._lock:
            self._closed = True
            machines = list(self._machines)
        errors: list[MachineError] = []

        def close(vm: VM) -> None:
            try:
                settle(vm)
                vm.close()
            except MachineError as error:
                errors.append(error)
            errors.extend(finding.error() for finding in untold(vm, allowances))

        with ExitStack() as stack:  # goes on to the end whatever else is raised
            for vm in machines:
                stack.callback(close, vm)
        if errors:
            add_notes(errors[0], errors[1:])
            raise errors[0]
