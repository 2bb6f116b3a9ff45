"""Machines that live as long as the session: a broken one is named, and not handed to the next test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import MachineError

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

FACTORY = "vm_session_factory"


@dataclass
class Shared:
    """A session's machine, the ``fixture`` that asked for it (None: a test did), the test it broke in."""

    vm: VM
    fixture: str | None
    broke_in: str | None = None


class SessionMachines:
    """What is known about the machines of a session."""

    def __init__(self) -> None:
        self.running_fixtures: list[str] = []
        self._shared: list[Shared] = []

    def add(self, vm: VM) -> None:
        """Remember a machine and the fixture that is being set up."""
        self._shared.append(Shared(vm, self.asking()))

    def asking(self) -> str | None:
        """Return the fixture that is being set up, None if it is a test that asks for a machine."""
        return next((name for name in reversed(self.running_fixtures) if name != FACTORY), None)

    @property
    def machines(self) -> list[VM]:
        """All of them."""
        return [shared.vm for shared in self._shared]

    def clear(self) -> None:
        """Forget the machines: the session's fixtures have closed them."""
        self._shared.clear()

    def note_broken(self, item: pytest.Item) -> None:
        """Remember which test left machines broken."""
        for shared in self._shared:
            if shared.broke_in is None and shared.vm.broken is not None:
                shared.broke_in = item.nodeid

    def used_by(self, item: pytest.Item) -> list[Shared]:
        """Return the machines that a test gets from its fixtures."""
        fixtures = getattr(item, "fixturenames", ())
        return [shared for shared in self._shared if (shared.fixture or FACTORY) in fixtures]

    def check(self, item: pytest.Item) -> None:
        """Raise MachineError when the test would get a machine that is broken."""
        for shared in self.used_by(item):
            if shared.vm.broken is not None:
                since = shared.broke_in or "before this test"
                raise MachineError(f"session machine '{shared.vm.name}' is broken since {since}: {shared.vm.broken}")


SESSION_MACHINES = pytest.StashKey[SessionMachines]()
