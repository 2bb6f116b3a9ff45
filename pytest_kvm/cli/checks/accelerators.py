"""Accelerators: tried anew with a probe guest, whatever is remembered."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvm.cli.checks.row import Row, State
from pytest_kvm.cli.checks.subject import Subject
from pytest_kvm.errors import HostError
from pytest_kvm.host.accel import Choice, choose, native, pace, trouble_with
from pytest_kvm.host.device import device_trouble
from pytest_kvm.qemu.binary import QEMUBinary

_GROUP = "Accelerators"
_FAST = "guests run at the speed of the CPU"


def check(subject: Subject) -> Iterator[Row]:
    """Run the probe guests."""
    if subject.binary is None:
        return
    try:
        chosen = choose("auto", subject.binary, again=True)
    except HostError as error:
        yield Row(group=_GROUP, name="auto", state=State.BROKEN, text=error.trouble, fix=error.hint, needed=True)
        return
    yield _native(chosen)
    yield _emulation(chosen, subject.binary)


def _native(chosen: Choice) -> Row:
    name = native()
    if chosen.name == name:
        return Row(
            group=_GROUP, name=name, state=State.OK, text="used: a probe guest ran", purpose=_FAST, data={"used": True}
        )
    opens = name == "kvm" and device_trouble() is None
    return Row(
        group=_GROUP,
        name=name,
        state=State.BROKEN if opens else State.MISSING,
        text=chosen.reason.removeprefix(f"{name}: "),
        purpose=_FAST,
        fix=chosen.fix,
        data={"used": False},
    )


def _emulation(chosen: Choice, binary: QEMUBinary) -> Row:
    trouble = trouble_with("tcg", binary)
    used = chosen.name == "tcg"
    factor = pace("tcg", binary)
    return Row(
        group=_GROUP,
        name="tcg",
        state=State.MISSING if trouble else State.OK,
        text=trouble or f"{'used: ' if used else ''}waits may take {factor:.1f} times as long as with {native()}",
        purpose="emulates, so that guests run anywhere",
        data={"used": used, "pace": round(factor, 2)},
    )
