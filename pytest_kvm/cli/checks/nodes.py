"""Device nodes of the host's kernel that some devices of machines need."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.host.device import node_trouble


def check(_: Subject) -> Iterator[Row]:
    """Look for the nodes that belong to no other group."""
    yield node("Devices", "vhost-vsock", "/dev/vhost-vsock", "vhost_vsock", "sockets between host and guest (vsock)")


def node(group: str, name: str, path: str, module: str, purpose: str) -> Row:
    """Tell whether a device node is there and can be opened."""
    trouble = node_trouble(path, module)
    return Row(
        group=group,
        name=name,
        state=State.OK if trouble is None else State.MISSING,
        text=f"{path} can be opened" if trouble is None else trouble.reason,
        purpose=purpose,
        fix="" if trouble is None else trouble.fix,
    )
