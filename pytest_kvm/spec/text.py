"""QEMU's option text: ``first,key=value,…`` with doubled commas."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kvm.spec.wording import Rejected, check_sayable, did_you_mean, shown


def split_options(text: str, *, keys: Sequence[str], first: str) -> dict[str, str]:
    """Return the keys and values of an option text, in order.

    A first part without ``=`` is the value of the key ``first``. A doubled comma is a comma in a value
    (QEMU's qemu-options: "use ,, "). Raises Rejected for a key that is not in ``keys``, twice there, or
    without a value.
    """
    options: dict[str, str] = {}
    check_sayable(text)
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    for number, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not equals and number == 0:
            key, value = first, part
        key = key.strip()
        if key not in keys:
            raise Rejected(f"unknown option {shown(key)} in {shown(text)}; {did_you_mean(key, keys)}")
        if key in options:
            raise Rejected(f"option '{key}' is given twice in {shown(text)}")
        if not value.strip():
            raise Rejected(f"option '{key}' has no value in {shown(text)}")
        options[key] = value.strip()
    return options
