"""Whether a virtio device is what its properties say: what was switched off is not negotiated, what was left on is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_kvm.errors import NegotiationError, SpecError
from pytest_kvm.machine.devices.virtio import VirtioState
from pytest_kvm.qemu.text import OFF, ON
from pytest_kvm.virtio.properties import CONFIG, SIZES, feature_of

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM

_VERSION_1 = "VIRTIO_F_VERSION_1"


def check_features(
    vm: VM, name: str, given: Mapping[str, object], *, left: Collection[str] = (), untaken: Collection[str] = ()
) -> None:
    """Raise NegotiationError unless a device is as the properties ``given`` to it say.

    ``left`` are properties that were left as they are: what they offer must have been negotiated. Of those ``untaken``
    the guest's driver is known not to take anything.
    """
    state = vm.virtio(name)
    problems = [] if "DRIVER_OK" in state.status else ["no driver of the guest's has it working"]
    problems += [
        problem for key, value in given.items() for problem in _wrong(vm, state, key, value, untaken=key in untaken)
    ]
    for key in left:
        feature = feature_of(state.type, key)
        if feature in state.offered - state.negotiated and key not in untaken:
            problems.append(f"{key} was left alone: {feature} is offered, and the driver did not take it")
    if problems:
        raise error_of(vm, state, f"with {told(given)} is not what it should be" if given else "is not right", problems)


def error_of(vm: VM, state: VirtioState, what: str, problems: list[str]) -> NegotiationError:
    """Return the error about a device, with both sides of the negotiation."""
    sides = {
        "the device offers": state.offered,
        "the driver took": state.negotiated,
        "status": state.status,
    }
    lines = [*problems, *(f"{side}: {', '.join(sorted(names)) or '(nothing)'}" for side, names in sides.items())]
    return NegotiationError(
        f"VM {vm.name!r}: {state.id!r} (virtio-{state.type}, driver {state.driver or 'none'}) {what}:\n"
        + "\n".join(f"  {line}" for line in lines),
        device=state.id,
        problems=problems,
    )


def told(given: Mapping[str, object]) -> str:
    """Return properties as QEMU writes them: ``packed=on,event_idx=off``."""
    return ",".join(f"{key}={_text(value)}" for key, value in given.items())


def _text(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def switch(value: object) -> bool | None:
    """Return whether a value switches something on, None if it is no switch."""
    if isinstance(value, str) and value in (*ON, *OFF):
        return value in ON
    return value if isinstance(value, bool) else None


def _wrong(vm: VM, state: VirtioState, key: str, value: object, *, untaken: bool) -> Iterator[str]:
    """Yield what is not as a property says."""
    said = f"{key}={_text(value)}"
    on = switch(value)
    if key == "disable-modern" and on is not None:
        yield from _switched(state, said, _VERSION_1, on=not on, untaken=untaken)
    elif key == "disable-legacy" and on:
        yield from _switched(state, said, _VERSION_1, on=True, untaken=untaken)
    elif (feature := feature_of(state.type, key)) is not None:
        yield from _switched(state, said, feature, on=bool(value) if on is None else on, untaken=untaken)
    if key in CONFIG.get(state.type, {}):
        field = CONFIG[state.type][key]
        # Without the feature that brings it the field is not there, and there is one queue.
        there = state.config.get(field, 1 if field == "num_queues" else None)
        if str(there) != str(value) and value not in (0, "0"):
            yield f"{said}: the configuration space has {field}={there}"
    elif key in SIZES.get(state.type, {}):
        sizes = {queue.size for queue in state.queues[SIZES[state.type][key]] if queue.enabled}
        if sizes != {int(str(value))}:
            yield f"{said}: the queues' sizes are {', '.join(map(str, sorted(sizes))) or 'none'}"
    elif feature_of(state.type, key) is None and on is not None and not key.startswith("disable-"):
        yield from _property(vm, state.id, key, said, on=on)


def _switched(state: VirtioState, said: str, feature: str, *, on: bool, untaken: bool) -> Iterator[str]:
    if not on:
        if feature in state.negotiated:
            yield f"{said}: {feature} was negotiated"
        elif feature in state.offered:
            yield f"{said}: {feature} is offered"
    elif feature not in state.offered:
        yield f"{said}: {feature} is not offered"
    elif feature not in state.negotiated and not untaken:
        yield f"{said}: {feature} is offered, and the driver did not take it"


def _property(vm: VM, name: str, key: str, said: str, *, on: bool) -> Iterator[str]:
    """What no bit tells: at least QEMU has it so."""
    try:
        there = vm.device(name).get(key)
    except SpecError:
        return
    if switch(there) not in (on, None):
        yield f"{said}: QEMU has {key}={_text(there)}"
