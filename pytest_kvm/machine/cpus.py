"""Whether QEMU has the declared CPU model, and this host can give what the test asks of it."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_kvm.errors import HostError, LaunchError
from pytest_kvm.host.queries import cpu_models
from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.plan import Plan
from pytest_kvm.spec.wording import nearest

# target/i386/cpu.c: an accelerator lacks features that the model, or the test, names, and "enforce" is among these.
_ENFORCED = "doesn't support requested features"
_LACKING = "doesn't support requested feature: "


def check_cpu(plan: Plan, binary: QEMUBinary) -> None:
    """Raise HostError for a CPU model that QEMU does not have, or not with the accelerator of the plan."""
    model = (plan.spec.cpu or "").partition(",")[0]
    accel = plan.accel.partition(",")[0]
    if model == "host" and accel == "tcg":
        raise HostError(
            f"vm(cpu={plan.spec.cpu!r}): the host's own CPU needs KVM or HVF, and this machine is emulated (accel=tcg)",
            hint="cpu='max' has all that the accelerator can do, whichever it is",
        )
    # QEMU takes names of its classes, too; what is not said to be a model is left to it.
    if not model or "=" in model or model.endswith("-cpu"):
        return
    known = cpu_models(str(binary.path))
    if known and model not in known:
        raise HostError(
            f"vm(cpu={plan.spec.cpu!r}): QEMU {binary.version_text} has no CPU model {model!r}",
            hint=_hint(model, known),
        )


def _hint(model: str, known: Mapping[str, str]) -> str:
    near = nearest(model, known)
    meant = f"did you mean {near!r}? " if near is not None else ""
    return f"{meant}pytest_kvm.host.cpu_models() has all; a newer QEMU may have it: --kvm-qemu=PATH"


def as_host_error(error: LaunchError, plan: Plan) -> HostError | None:
    """Return what it means for a test that QEMU did not start: None, unless ``enforce`` is in ``cpu=`` and refused."""
    if _ENFORCED not in error.stderr:
        return None
    named = [line.partition(_LACKING)[2].partition(" [")[0] for line in error.stderr.splitlines() if _LACKING in line]
    lacking = ", ".join(dict.fromkeys(named)) or "some of its features"
    return HostError(
        f"vm(cpu={plan.spec.cpu!r}): this host cannot give {lacking} (accel={plan.accel})",
        hint="without enforce, QEMU leaves out what it cannot give, and vm.cpu.flags says what is there",
    )
