"""A machine's state, out of one QEMU and into another (QEMU's docs/devel/migration.rst and vm-templating.txt)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pytest_kvm.errors import MachineError, QMPError, WaitTimeout
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.waiting import Deadline

# Bytes a second. QEMU's default, 128 MiB, is meant for networks.
_BANDWIDTH = 1 << 40
# No switch has to learn that the guest moved: its driver would be busy with ARP, NDP and MLD for 15 ms. The longest
# delay that there is; no rounds at all make QEMU 7.2 crash at the next reset (virtio_net_reset deletes a freed timer).
_SILENCE = {"announce-initial": 100_000, "announce-rounds": 1}
ENDS = frozenset({"completed", "failed", "cancelled"})


class NotSaved(MachineError):
    """QEMU cannot, or would not, save this machine; it says why."""


def _capabilities(*, without_ram: bool) -> dict[str, object]:
    # x-ignore-shared leaves out RAM that is a shared file: there it is already.
    wanted = {"events": True, "x-ignore-shared": without_ram}
    return {"capabilities": [{"capability": name, "state": state} for name, state in wanted.items()]}


def why_blocked(qmp: QMP) -> str:
    """Return why QEMU would refuse to save the machine, as far as it knows by now; an empty text if nothing is."""
    return "; ".join(qmp.execute("query-migrate").get("blocked-reasons", ()))


def preparations(*, without_ram: bool) -> list[tuple[str, Mapping[str, object]]]:
    """Return the commands that come before the one that saves the machine."""
    return [
        ("migrate-set-capabilities", _capabilities(without_ram=without_ram)),
        ("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH}),
    ]


def save(qmp: QMP, socket: Path, deadline: Deadline, *, without_ram: bool) -> None:
    """Send the machine's state to the AF_UNIX ``socket``; it runs until then, and is stopped after it.

    ``without_ram`` leaves out the RAM, which must be a shared file. Raises NotSaved in QEMU's words.
    """
    try:
        qmp.execute_all(*preparations(without_ram=without_ram))
        with qmp.expect_event("MIGRATION", {"status": ENDS}, timeout=deadline.remaining()):
            qmp.execute("migrate", {"uri": f"unix:{socket}"})
    except QMPError as error:
        raise NotSaved(str(error)) from error
    except WaitTimeout as error:
        raise NotSaved(f"QEMU did not finish saving the machine within {deadline.seconds or 0.0:g} s") from error
    status = qmp.execute("query-migrate")
    if status.get("status") != "completed":
        raise NotSaved(f"QEMU could not save the machine: {status.get('error-desc', status.get('status'))}")


@contextmanager
def loading(qmp: QMP, uri: str, deadline: Deadline, *, without_ram: bool) -> Iterator[None]:
    """Let a machine that waits for it take a state from ``uri``; at the end of the block it has, and is paused.

    Raises QMPError, WaitTimeout, and the machine's end when QEMU refuses the state (it says why on stderr).
    """
    with qmp.expect_event("MIGRATION", {"status": "completed"}, timeout=deadline.remaining()):
        qmp.execute_all(
            ("migrate-set-capabilities", _capabilities(without_ram=without_ram)),
            ("migrate-set-parameters", _SILENCE),
            ("migrate-incoming", {"uri": uri}),
        )
        yield


def load(qmp: QMP, uri: str, deadline: Deadline, *, without_ram: bool) -> None:
    """Do the same for a state that is there already."""
    with loading(qmp, uri, deadline, without_ram=without_ram):
        pass
