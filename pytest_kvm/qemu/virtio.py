"""What QEMU knows about its virtio devices: QMP's x-query-virtio-status, which may change, and is read leniently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_kvm.errors import QMPError, SpecError
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.virtio.features import bit_of, ones

_PREFIX = "VIRTIO_CONFIG_S_"
# vhost's own, which QEMU has in place of what they are in virtio.
_OF_VHOST = {"VHOST_USER_F_PROTOCOL_FEATURES": 30, "VHOST_F_LOG_ALL": 26, "VHOST_NET_F_VIRTIO_NET_HDR": 27}


@dataclass(frozen=True)
class Queue:
    """A virtqueue: its ``index``, its ``size`` (0: the device does not have it), whether the driver has ``enabled`` it.

    ``default`` is the size that the device proposes, ``in_use`` how many requests it has taken and not answered.
    """

    index: int
    size: int
    enabled: bool
    default: int
    in_use: int


@dataclass(frozen=True)
class QEMUView:
    """A device: the bits that it offers, and that were negotiated, the status' names, its queues.

    ``nameless`` are what QEMU calls bits that we have no number for.
    """

    offered: frozenset[int]
    negotiated: frozenset[int]
    status: frozenset[str]
    queues: tuple[Queue, ...]
    nameless: frozenset[str]


def look_in_qemu(qmp: QMP, name: str, type_: str) -> QEMUView | None:
    """Return QEMU's view of a device; None where it has none. Raises SpecError for one that is not virtio's."""
    try:
        devices = qmp.execute("x-query-virtio")
    except QMPError as error:
        if error.error_class == "CommandNotFound":
            return None
        raise
    beginning = f"/machine/peripheral/{name}"
    path = next((each["path"] for each in devices if each["path"] in (beginning, f"{beginning}/virtio-backend")), None)
    if path is None:
        raise SpecError(f"device {name!r} is none of virtio", keyword="devices")
    told = qmp.execute("x-query-virtio-status", {"path": path})
    offered, strange = _bits(told["host-features"], type_)
    negotiated, stranger = _bits(told["guest-features"], type_)
    return QEMUView(
        offered, negotiated, _status(told["status"]), _queues(qmp, path, told["num-vqs"]), strange | stranger
    )


def _bits(told: Mapping[str, Any], type_: str) -> tuple[frozenset[int], frozenset[str]]:
    bits = set(ones(told.get("unknown-dev-features", 0)))
    bits |= {64 + bit for bit in ones(told.get("unknown-dev-features2", 0))}
    strange = set()
    for text in (*told.get("transports", ()), *told.get("dev-features", ())):
        name = text.partition(":")[0]
        try:
            bits.add(_OF_VHOST[name] if name in _OF_VHOST else bit_of(type_, name))
        except KeyError:
            strange.add(name)
    return frozenset(bits), frozenset(strange)


def _status(told: Mapping[str, Any]) -> frozenset[str]:
    names = {text.partition(":")[0].removeprefix(_PREFIX) for text in told.get("statuses", ())}
    if told.get("unknown-statuses"):
        names.add(f"{told['unknown-statuses']:#x}")
    return frozenset("DEVICE_NEEDS_RESET" if name == "NEEDS_RESET" else name for name in names)


def _queues(qmp: QMP, path: str, count: int) -> tuple[Queue, ...]:
    questions = [("x-query-virtio-queue-status", {"path": path, "queue": index}) for index in range(count)]
    return tuple(
        Queue(
            index=told["queue-index"],
            size=told["vring-num"],
            enabled=told["vring-desc"] != 0,
            default=told["vring-num-default"],
            in_use=told["inuse"],
        )
        for told in qmp.execute_all(*questions)
    )
