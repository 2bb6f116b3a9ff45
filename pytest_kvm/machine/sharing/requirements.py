"""What a machine has to be made like, so that folders can be plugged into it."""

from __future__ import annotations

from dataclasses import replace

from pytest_kvm.errors import SpecError
from pytest_kvm.qemu.cmdline import ROOT_PORTS
from pytest_kvm.qemu.plan import has_backend, machine_kind, plan_shares
from pytest_kvm.spec.vm import VMSpec


def check_place(spec: VMSpec) -> None:
    """Raise SpecError for shares of a machine that nothing can be plugged into."""
    kind = machine_kind(spec.machine)
    if not plan_shares(spec):
        return
    if kind not in ("q35", "pc"):
        raise SpecError(
            f"vm(machine={spec.machine!r}): its shares are plugged in, which q35 and pc are made for",
            keyword="shares",
        )
    if kind == "q35" and spec.extras is not None and "rootports" not in spec.extras:
        raise SpecError(
            "vm(extras=…, shares=…): shares are plugged into spare root ports; add 'rootports' to extras",
            keyword="shares",
        )
    if kind == "q35" and len(spec.shares) > ROOT_PORTS:
        raise SpecError(
            f"vm(shares=…): {len(spec.shares)} shares, and there are {ROOT_PORTS} root ports for them; share a folder "
            "that has them all",
            keyword="shares",
        )


def wants_shared_memory(spec: VMSpec) -> bool:
    """Return whether a machine that is booted needs memory that a daemon can see."""
    return has_backend(spec) and any(share.method in ("auto", "virtiofs") for share in spec.shares)


def chosen(spec: VMSpec, method: str) -> VMSpec:
    """Return the spec with the session's method for the shares that leave it open; raises SpecError."""
    if method == "auto" or not spec.shares:
        return spec
    shares = [replace(share, method=method) if share.method == "auto" else share for share in spec.shares]
    return spec.replace(shares=shares)
