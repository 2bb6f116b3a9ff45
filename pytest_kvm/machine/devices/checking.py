"""Whether the installed QEMU has the declared devices, and the properties that are given to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.remembering import Remembered
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.built import Built, devices_of
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.devices import check_known
from pytest_kvm.qemu.plan import DriveFile, Plan, plan_devices, plan_drives
from pytest_kvm.qemu.properties import Property, properties_of
from pytest_kvm.spec.wording import did_you_mean


def check_devices(plan: Plan, binary: QEMUBinary) -> None:
    """Check a machine's devices against its QEMU, those that are not texts of the user's.

    Raises HostError for a device that it does not have, SpecError for a property that the device does not have, or an
    id that no device has.
    """
    given = [(name, properties) for name, properties in _given(plan) if properties]
    declared = plan_devices(plan.spec)
    if not (given or declared or plan.spec.properties):
        return
    drives = plan_drives(plan.spec)
    built = devices_of(build(replace(plan, drives=[(each, DriveFile(Path("file"), "raw")) for each in drives]), binary))
    for name in plan.spec.properties:
        if name not in built:
            raise SpecError(
                f"vm(properties=…): no device has id {name!r}; {did_you_mean(name, built)}",
                keyword="properties",
                value=name,
            )
    for planned in declared:
        check_known(built[planned.id].driver, binary, repr(planned.device))
    for name, properties in given:
        if name in built:
            check_properties(name, properties, built[name], binary)


def check_properties(name: str, given: Mapping[str, object], built: Built, binary: QEMUBinary) -> None:
    """Raise SpecError for the first property that a device, with its id, does not have."""
    known = describe(built.driver, binary)
    for key in given if known else ():
        if key not in known and key.partition("[")[0] not in known and f"len-{key.partition('[')[0]}" not in known:
            raise SpecError(
                f"device {name!r} ({built.driver} of QEMU {binary.version_text}) has no property {key!r}; "
                f"{did_you_mean(key, known)}",
                keyword="properties",
                value=key,
            )


def describe(driver: str, binary: QEMUBinary) -> Mapping[str, Property]:
    """Return the properties of a device; raises QEMUNotFound when QEMU does not answer."""
    return properties_of(binary.path, driver, Remembered(cache_dir() / "host").about)


def _given(plan: Plan) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the ids of the devices that properties are given to, and these."""
    yield from plan.spec.properties.items()
    for planned in plan_devices(plan.spec):
        yield planned.id, planned.device.properties
    for drive in plan_drives(plan.spec):
        yield drive.id, drive.drive.properties
    for nic in plan.nics:
        yield nic.id, nic.nic.properties
