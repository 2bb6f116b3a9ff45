"""Whether errors of what is declared are kept for later.

``@pytest.mark.vm(drives=[Drive(cache="fast")])`` makes its Drive while pytest imports the test module; an
error raised there would take all other tests of the module with it. So inside ``postponing()`` the error is
kept in the object, and
raised by whoever uses it: the check of the marker, which knows the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_postponing: ContextVar[bool] = ContextVar("pytest_kvm_postponing", default=False)


@contextmanager
def postponing() -> Iterator[None]:
    """Keep the errors of what is made inside the block until it is used."""
    token = _postponing.set(True)
    try:
        yield
    finally:
        _postponing.reset(token)


def is_postponing() -> bool:
    """Return whether errors are to be kept now."""
    return _postponing.get()
