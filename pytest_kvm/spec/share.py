"""A folder of the host that a machine has."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.construction import check_values, checked, short_repr
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.values import Check, boolean, one_of, optional, path, text
from pytest_kvm.spec.wording import check_sayable, expected, expected_type, shown

METHODS = ("auto", "virtiofs", "9p", "image")


def _guest_folder(value: object) -> None:
    wanted = "the absolute path of a folder in the guest, other than /"
    if not isinstance(value, str):
        raise expected_type(wanted, value)
    if not value.startswith("/") or not posixpath.normpath(value).strip("/"):
        raise expected(wanted, value)
    check_sayable(value)


CHECKS: dict[str, Check] = {
    "host": path,
    "guest": _guest_folder,
    "readonly": boolean,
    "method": one_of(*METHODS),
    # A virtio disk has room for so many bytes of serial number, which the guest finds an image by.
    "id": optional(
        text("a QEMU id (a letter, then letters, digits, '-', '.' or '_'; at most 20)", r"[A-Za-z][A-Za-z0-9._-]{0,19}")
    ),
}


@checked("Share", postponable=True)
@dataclass(frozen=True, repr=False)
class Share:
    """A folder of the host in the guest, mounted when the machine is ready.

    ``host`` is a path, relative to the folder of the test file; ``guest`` is where it is mounted, an absolute path,
    which is made if it is not there. ``readonly`` refuses writes (the default); with False, the guest writes into the
    host's folder. ``method`` is ``virtiofs``, ``9p``, ``image`` (a read-only disk made of the folder as it is when the
    machine starts), or ``auto``: the session's (``--kvm-share``), else the best that host and guest have. ``id`` is
    QEMU's id (default ``share0`` …).

    Raises SpecError when a value cannot be.
    """

    host: str | os.PathLike[str]
    guest: str
    readonly: bool = True
    method: str = field(default="auto", kw_only=True)
    id: str | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return short_repr(self, implied={})

    def _check(self) -> None:
        check_values("Share", {name: getattr(self, name) for name in CHECKS}, CHECKS)
        if self.method == "image" and self.readonly is False and not holds_reference(self.readonly):
            raise SpecError(
                f"Share(method={shown(self.method)}, readonly=False): an image is a copy that the guest reads; "
                "use virtiofs or 9p",
            )
