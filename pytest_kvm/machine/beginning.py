"""Does a machine begin with a boot, or as a clone?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pytest_kvm.errors import SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.machine.cloning import FromTemplate
from pytest_kvm.machine.disks import format_of
from pytest_kvm.machine.eligibility import why_not, why_rare, why_rather_not
from pytest_kvm.machine.identity import Unknowable, template_key
from pytest_kvm.machine.late import split
from pytest_kvm.machine.library import Library
from pytest_kvm.machine.starting import Boot, Origin
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import Plan, PlannedDrive, plan_drives
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec
from pytest_kvm.visible import visible

_log = logging.getLogger("pytest_kvm")


def choose_origin(
    spec: VMSpec,
    plan: Plan,
    image: Image | None,
    *,
    binary: QEMUBinary,
    library: Callable[[], Library],
    build: Callable[[Sequence[PlannedDrive]], VM],
) -> Origin:
    """Decide how a machine comes up; ``build`` makes the machine that becomes a template, with these drives.

    Raises SpecError when it shall be a clone and cannot.
    """
    drives = plan_drives(plan.spec)
    if spec.start == "boot":
        return Boot(drives)
    cold, later = split(drives, spec, image)

    def key() -> str:
        formats = [(planned, format_of(planned.drive)) for planned in cold]
        return template_key(spec, plan, formats, image=image, binary=binary, memory=cache_dir() / "host")

    reason = why_not(spec, plan, cold, binary=binary)
    if spec.start == "auto":
        reason = reason or why_rather_not(spec, image)
    found = ""
    try:
        found = "" if reason else key()
    except Unknowable as error:
        reason = str(error)
    if reason is not None:
        if spec.start == "clone":
            raise SpecError(f"vm(start='clone'): the machine cannot be cloned: {reason}", keyword="start")
        _log.info("VM %r is booted: %s", spec.name, visible(reason))
        return Boot(drives, reason)
    return FromTemplate(
        library=library(),
        key=found,
        cold=cold,
        later=later,
        builder=lambda: build(cold),
        key_now=key,
        demanded=spec.start == "clone",
        rare=why_rare(cold),
    )
