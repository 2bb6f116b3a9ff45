"""Ways to networks that are more than QEMU's own: taps, bridges, vhost, passt."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_kvm.cli.checks.nodes import node
from pytest_kvm.cli.checks.programs import program
from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.host.helpers import find

_GROUP = "Network"
BRIDGES = Path("/etc/qemu/bridge.conf")
_STATUS = Path("/proc/self/status")
_NET_ADMIN = 12  # capability.h's CAP_NET_ADMIN
_PATIENCE = 10.0


def check(_: Subject) -> Iterator[Row]:
    """Look for what other networks than QEMU's user network need."""
    yield node(_GROUP, "tap", "/dev/net/tun", "tun", "network cards that the host's kernel sees")
    yield _privilege()
    yield _namespaces()
    yield _bridge_helper()
    yield node(_GROUP, "vhost-net", "/dev/vhost-net", "vhost_net", "virtio network cards that the host's kernel serves")
    yield program(_GROUP, "passt", "a user network that is faster than QEMU's own")


def _privilege() -> Row:
    """Tell whether taps and bridges can be made in the host's own network."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("CapEff:"))
    has = bool(int(line.split()[1], 16) >> _NET_ADMIN & 1)
    return Row(
        group=_GROUP,
        name="net-admin",
        state=State.OK if has else State.MISSING,
        text="this user has CAP_NET_ADMIN" if has else "this user has no CAP_NET_ADMIN",
        purpose="taps and bridges in the network of the host",
        fix="" if has else "run as root, or use network namespaces; in a container: --cap-add=NET_ADMIN",
    )


def _namespaces() -> Row:
    """Try a network namespace in a user namespace, which needs no privilege where the host allows it."""
    command = ["unshare", "--user", "--map-root-user", "--net", "true"]
    try:
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        trouble = said.stderr.strip() if said.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    fixes = (
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
        "sudo sysctl kernel.unprivileged_userns_clone=1 (older Debian)",
    )
    return Row(
        group=_GROUP,
        name="namespaces",
        state=State.MISSING if trouble else State.OK,
        text=trouble or "this user can make them",
        purpose="routed and isolated networks without root",
        fix="\n".join(fixes) if trouble else "",
    )


def _bridge_helper() -> Row:
    path = find("qemu-bridge-helper")
    state, text, fix = State.MISSING, "not there", ""
    if path is not None:
        state, text = State.OK, str(path)
        allowed = [line.strip() for line in _bridges() if line.strip().startswith(("allow", "include"))]
        if os.geteuid() != 0 and not path.stat().st_mode & stat.S_ISUID:
            state, text, fix = State.BROKEN, f"{path} is not setuid root", f"sudo chmod u+s {path}"
        elif not allowed:
            state, text = State.BROKEN, f"{path}; {BRIDGES} allows no bridge"
            fix = f"echo 'allow BRIDGE' | sudo tee -a {BRIDGES}"
    return Row(
        group=_GROUP,
        name="bridge-helper",
        state=state,
        text=text,
        purpose="a tap on a bridge of the host without root",
        fix=fix,
        package="",
    )


def _bridges() -> list[str]:
    try:
        return BRIDGES.read_text(errors="replace").splitlines()
    except OSError:
        return []
