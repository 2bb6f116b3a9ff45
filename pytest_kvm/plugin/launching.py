"""The session's launcher, made when the first machine is asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_kvm.errors import MachineError
from pytest_kvm.plugin.artifacts import ARTIFACTS
from pytest_kvm.plugin.debugging import waits_for_gdb
from pytest_kvm.plugin.options import OPTIONS, Options
from pytest_kvm.plugin.signals import SIGNALS
from pytest_kvm.plugin.staying import STAYING
from pytest_kvm.visible import visible

if TYPE_CHECKING:
    from pytest_kvm.host.amounts import Limits
    from pytest_kvm.machine.launcher import Launcher

LAUNCHER = pytest.StashKey["Launcher"]()
# Held by who makes it: factories may be called from threads.
MAKING = pytest.StashKey[threading.Lock]()


# The QEMU of the tests that run now.
QEMU = pytest.StashKey[str | None]()


def launcher_of(config: pytest.Config) -> Launcher:
    """Return the launcher of this pytest process; usable from any thread."""
    with config.stash[MAKING]:
        return _launcher_of(config)


def _launcher_of(config: pytest.Config) -> Launcher:
    if LAUNCHER not in config.stash:
        from pytest_kvm.host.sweep import sweep_first
        from pytest_kvm.machine.launcher import Launcher
        from pytest_kvm.machine.settings import DEFAULT_TEMPLATE_LIMIT, Settings
        from pytest_kvm.plugin.images import described_images

        options = config.stash[OPTIONS]
        limit, staying = options.template_limit, config.stash.get(STAYING, None)
        settings = Settings(
            qemu=config.stash[QEMU],
            offline=options.offline,
            archive=options.archive,
            keyring=options.keyring,
            images=described_images(config),
            template_limit=DEFAULT_TEMPLATE_LIMIT if limit is None else limit,
            limits=_limits(options),
            run=_run(config),
            monitor=staying is not None and staying.attachable,
            vmcore=options.vmcore,
            share=options.share,
            gdb_wait=waits_for_gdb(config),
            vmlinux=[Path(file) for file in options.vmlinux],
        )
        report, leave = reporter(config), config.stash[ARTIFACTS].leave
        heir = staying.take_over if staying is not None else None
        sweep_first(report)
        config.stash[LAUNCHER] = Launcher(settings, timeout=options.timeout, report=report, leave=leave, heir=heir)
        config.stash[SIGNALS].follow_controller(config.stash[LAUNCHER])
    return config.stash[LAUNCHER]


def _limits(options: Options) -> Limits:
    from pytest_kvm.host.amounts import default_limits

    given = {"memory": options.memory_budget, "vcpus": options.max_vcpus, "machines": options.max_machines}
    return replace(default_limits(), **{name: limit for name, limit in given.items() if limit is not None})


def _run(config: pytest.Config) -> str:
    """Return what the workers of one run of xdist have in common, "" for a process that is alone."""
    return str(getattr(config, "workerinput", {}).get("testrunuid", ""))


def close_launcher(config: pytest.Config) -> None:
    """Close the launcher if there is one; an error ends the session with status 1."""
    if LAUNCHER in config.stash:
        launcher = config.stash[LAUNCHER]
        del config.stash[LAUNCHER]
        try:
            launcher.close()
        except MachineError as error:
            raise pytest.exit.Exception(f"kvm: {error}", returncode=1) from error


def reporter(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line at the terminal, past the capturing; a worker of xdist does so on standard error."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    worker = getattr(config, "workerinput", {}).get("workerid", "")

    def report(line: str) -> None:
        if capture is None:
            return
        with capture.global_and_fixture_disabled():
            if worker:  # its terminal is none; its standard error is the controller's
                print(f"\nkvm: [{worker}] {visible(line)}", file=sys.stderr, flush=True)
            elif terminal is not None:
                terminal.ensure_newline()
                terminal.write_line(f"kvm: {visible(line)}")
                terminal.flush()  # what it says may take long

    return report
