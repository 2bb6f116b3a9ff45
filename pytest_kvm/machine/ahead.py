"""The next test's machine, made while the current test runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pytest_kvm.errors import KVMError, MachineError
from pytest_kvm.host.budget import Share
from pytest_kvm.host.memory import available
from pytest_kvm.host.request import Holder
from pytest_kvm.machine.starting import rest, wake
from pytest_kvm.machine.vm import VM
from pytest_kvm.spec.vm import VMSpec

_log = logging.getLogger("pytest_kvm")
# What must be left beside the machine's own memory for one to be made that nobody has asked for yet.
_RESERVE = 1 << 30


class Ahead:
    """At most one machine that nobody has asked for yet; usable from any thread.

    ``make`` returns one for a spec, not started, or None when its start is not a matter of milliseconds; ``share``
    returns what it takes of the budget, None when there is nothing to spare.
    """

    def __init__(self, make: Callable[[VMSpec], VM | None], share: Callable[[VMSpec], Share | None]) -> None:
        self._make = make
        self._share = share
        self._lock = threading.RLock()
        self._next: _Next | None = None

    def begin(self, spec: VMSpec, memory: int) -> None:
        """Make a machine of this spec in the background instead of the one there was.

        Nothing is made if its ``memory``, in bytes, is not there.
        """
        with self._lock:
            if self._next is not None and self._next.spec == spec:
                return
            self.close()
            share = self._share(spec) if available() >= memory + _RESERVE else None
            if share is not None:
                self._next = _Next(spec, self._make, share)

    def take(self, spec: VMSpec, holder: Holder) -> VM | None:
        """Return the machine that was made for this spec, running and as if made now; None if there is none.

        It is the ``holder``'s then, unless others have been waiting for what it takes.
        """
        with self._lock:
            if self._next is None or self._next.spec != spec:
                return None
            prepared = self._next
            vm = prepared.result()
            self._next = None
        if vm is None:
            return None
        try:
            if not prepared.share.keep(holder):
                vm.close()
                return None
            wake(vm)
        except KVMError as error:
            _log.info("VM %r, made ahead, is of no use: %s", spec.name, error)
            vm.close()
            return None
        except BaseException:
            vm.close()
            raise
        return vm

    def make_room(self) -> None:
        """Give up the machine when memory is short: somebody else has one to make."""
        with self._lock:
            if self._next is not None and available() < _RESERVE:
                self.close()

    def close(self) -> None:
        """End the machine that nobody has asked for."""
        with self._lock:
            if self._next is not None:
                self._next.drop()
                self._next = None


class _Next:
    """A machine in the making."""

    def __init__(self, spec: VMSpec, make: Callable[[VMSpec], VM | None], share: Share) -> None:
        self.spec = spec
        self.share = share
        self._make = make
        self._vm: VM | None = None
        self._wanted = False
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="pytest-kvm-ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        # The test that needs it makes its own then, and shows what is wrong.
        try:
            self._vm = self._make(self.spec)
            if self._vm is None:
                self.share.release()
            else:
                self._vm._share = self.share
            if self._vm is not None and not self._dropped:
                self._vm.start()
                if not self._wanted and not self._dropped:
                    rest(self._vm)
        except (KVMError, OSError) as error:
            _log.info("VM %r could not be made ahead: %s", self.spec.name, error)
            self._discard()

    def _discard(self) -> None:
        vm, self._vm = self._vm, None
        if vm is not None:
            try:
                vm.close()
            except MachineError as error:
                _log.warning("VM %r, made ahead: %s", self.spec.name, error)
        self.share.release()

    def result(self) -> VM | None:
        """Return the machine when it is made; None if it could not be."""
        self._wanted = True
        self._thread.join()
        return self._vm

    def drop(self) -> None:
        """End the machine, whether or not it has come up."""
        self._dropped = True
        vm = self._vm
        if vm is not None:
            vm.watch.fail(lambda: MachineError("nobody needs the machine any more"))
        self._thread.join()
        self._discard()
