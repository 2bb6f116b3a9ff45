"""``--kvm-until-failure``: the tests with machines run in rounds until one fails."""

from __future__ import annotations

from copy import copy
from itertools import count

import pytest

from pytest_kvm.plugin.launching import reporter
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.starting import FIXTURE


def stop_at_failure(config: pytest.Config) -> None:
    """Let the first failure be the last; raises pytest.UsageError where rounds without an end cannot be run."""
    options = config.stash[OPTIONS]
    if not options.until_failure:
        return
    config.option.maxfail = 1  # as -x does, under xdist, too
    if not options.repeat and (getattr(config.option, "dist", "no") != "no" or hasattr(config, "workerinput")):
        raise pytest.UsageError("--kvm-until-failure: with -n, say with --kvm-repeat=N how often at most")


def run_rounds(session: pytest.Session) -> bool | None:
    """Run the session's tests, and those with machines again and again; None: pytest is to run them, once."""
    options = session.config.stash[OPTIONS]
    if not options.until_failure or options.repeat or session.config.option.collectonly:
        return None
    repeated = [item for item in session.items if FIXTURE in getattr(item, "fixturenames", ())]
    if not repeated or (session.testsfailed and not session.config.option.continue_on_collection_errors):
        return None
    report = reporter(session.config)
    items = session.items
    for number in count(1):
        report(f"round {number}")
        for index, item in enumerate(items):
            # There is always a next one: what lasts for the session or a module is not made anew for each round.
            # The test itself would be torn down by that one only, if it were the same.
            following = items[index + 1] if index + 1 < len(items) else copy(repeated[0])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item._report_sections.clear()  # what a passed round has printed
            if session.shouldfail:
                session.shouldfail = f"{session.shouldfail}, in round {number}"
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        items = repeated
    return True
