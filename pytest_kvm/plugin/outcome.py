"""What an error becomes: a skip when the host cannot, one line when the declaration is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from pytest_kvm.errors import HostError, KVMError, SpecError
from pytest_kvm.plugin.collection import MARKED_FIXTURES, UNUSED
from pytest_kvm.plugin.options import OPTIONS

OUR_FOLDER = str(Path(__file__).parent.parent)
STDLIB = str(Path(contextlib.__file__).parent)
# pytest shows no frame of this module in tracebacks.
__tracebackhide__ = True

USED = pytest.StashKey[bool]()
# An error of the test's that no place in its code is to blame for.
PLACELESS = pytest.StashKey[KVMError]()


@contextlib.contextmanager
def told(item: pytest.Item, *, setup: bool) -> Iterator[None]:
    """Turn our errors inside the block into what pytest shall show.

    A SpecError is told in one line only in setup: in the test's own code its place matters.
    """
    try:
        yield
    except HostError as error:
        if item.config.stash[OPTIONS].strict:
            raise pytest.fail.Exception(f"{error} (--kvm-strict)", pytrace=False) from None
        # The skip is the test's, so its line is what the summary shall show.
        raise pytest.skip.Exception(str(error), _use_item_location=True) from None
    except KVMError as error:
        if setup and isinstance(error, SpecError):
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if not item.config.getoption("fulltrace"):
            _hide_our_frames(error)
        raise


def shorten_report(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Let an error of ours that comes from nowhere in the user's code be shown without a traceback."""
    excinfo = call.excinfo
    if excinfo is None or not report.longrepr or item.config.getoption("fulltrace"):
        return
    error = excinfo.value
    hidden = isinstance(error, KVMError) and not item._traceback_filter(excinfo)
    if hidden or item.stash.get(PLACELESS, None) is error:
        shown = excinfo.getrepr(style="value")
        # By itself this style leaves out the error's name and its notes.
        shown.reprtraceback.reprentries[-1].lines = excinfo.exconly().splitlines()
        report.longrepr = shown


def note_use(fixture: str, request: pytest.FixtureRequest) -> None:
    """Remember that the test came to use a fixture that its marker reaches."""
    if fixture in MARKED_FIXTURES:
        request.node.stash[USED] = True


def check_use(item: pytest.Item) -> None:
    """Fail a test that has a marker and could have asked for a machine by ``request``, but never did."""
    error = item.stash.get(UNUSED, None)
    if error is not None and not item.stash.get(USED, False):
        raise pytest.fail.Exception(str(error), pytrace=False)


def _hide_our_frames(error: BaseException) -> None:
    """Cut the traceback behind the user's last frame: where the user called us, not where we noticed.

    What it was raised from inside of ours is in its text.
    """
    last = _users_last(error)
    if last is not None:
        last.tb_next = None
    behind = list(_behind(error))
    users = next((each for each in behind if _users_last(each) is not None), None)
    if behind and users is not behind[0]:
        error.__cause__, error.__context__ = None, users
        error.__suppress_context__ = users is None


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error was raised from, and that in turn."""
    seen = {id(error)}
    inner = error.__cause__ or error.__context__
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or inner.__context__


def _users_last(error: BaseException) -> TracebackType | None:
    """Return the entry of the user's last frame in a traceback, None if there is none."""
    last: TracebackType | None = None
    entry = error.__traceback__
    while entry is not None:
        if not _is_machinery(entry.tb_frame.f_code.co_filename):
            last = entry
        entry = entry.tb_next
    return last


def _is_machinery(file: str) -> bool:
    """Return whether the file is ours, or Python's own that we went through (not what is installed there)."""
    return file.startswith(OUR_FOLDER) or (file.startswith(STDLIB) and "site-packages" not in file)
