"""``--kvm-gdb-wait``: machines that wait for somebody with gdb, one at a time."""

from __future__ import annotations

import pytest

from pytest_kvm.plugin.options import OPTIONS


def waits_for_gdb(config: pytest.Config) -> bool:
    """Return whether machines wait for gdb; where tests run in several processes they do not."""
    return config.stash[OPTIONS].gdb_wait and not in_several_processes(config)


def check_debugging(config: pytest.Config) -> None:
    """Raise pytest.UsageError when the command line asks for what several processes cannot do."""
    if config.getoption("kvm_gdb_wait") and in_several_processes(config):
        raise pytest.UsageError(
            "--kvm-gdb-wait lets machines wait for somebody with gdb, one after the other, "
            "and the tests run in several processes; leave out -n"
        )


def in_several_processes(config: pytest.Config) -> bool:
    """Return whether the tests run in several processes, of which this is one or the one that controls them."""
    return config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")
