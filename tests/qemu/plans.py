"""Plans as the launcher makes them, and their command lines."""

from __future__ import annotations

import shlex
from dataclasses import replace

from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import Channel, Plan, plan_nics
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary

MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"]


def plan(spec: VMSpec, **changes: object) -> Plan:
    """Return the plan for a spec as the launcher makes it, with descriptors filled in."""
    bare = spec.machine == "none"
    planned = Plan(
        spec=spec,
        accel="tcg",
        qmp=Channel("qmp", 10, connected=False),
        console=None if bare else Channel("console", 11),
        nics=plan_nics(spec, [parse_hostfwd(value) for value in spec.hostfwd], MACS),
    )
    return replace(planned, **changes)  # type: ignore[arg-type]  # a test's own words


def tail(planned: Plan) -> list[str]:
    """Return what comes after the console."""
    command = build(planned, binary())
    return command[command.index("chardev:console") + 1 :]


def words(*lines: str) -> list[str]:
    """Return the words of a command line, written over several lines."""
    return shlex.split(" ".join(lines))
