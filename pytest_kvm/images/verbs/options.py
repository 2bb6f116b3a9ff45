"""The options of formats, as qemu-img itself tells them, and sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_kvm.images.verbs.call import Call
from pytest_kvm.spec.size import LARGEST, read_size
from pytest_kvm.spec.wording import Rejected, check_sayable, did_you_mean, expected, expected_type, shown

SECTOR = 512
# Formats that qemu-img can make without a secret.
CREATABLE = ("raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels")
_OPTION = re.compile(r"^ +(\S+)=<(\w+)", re.MULTILINE)
# Which argument, or verb, has what these say.
_ELSEWHERE = {
    "size": "it is the argument size=, or images.resize(…)",
    "backing_file": "it is the argument backing=, or images.rebase(…)",
    "backing_fmt": "it is the argument backing_format=, or images.rebase(…)",
    "data_file": "an image of two files cannot be made as a whole or not at all; qemu-img itself makes it",
    "data_file_raw": "an image of two files cannot be made as a whole or not at all; qemu-img itself makes it",
}
_SECRET = re.compile(r"encrypt(ion$|\.)")
_ONE_FILE = ("monolithicSparse", "streamOptimized")


def option_arguments(call: Call, options: Mapping[str, object] | None, *ask: str, format_: str) -> list[str]:
    """Return the arguments for a format's options.

    ``ask`` is the beginning of the qemu-img command that tells, with ``-o help``, which there are. Raises SpecError
    for one that there is not, or whose value has another type.
    """
    if options is None:
        return []
    with call.argument("options", options):
        if not isinstance(options, Mapping):
            raise expected_type("a mapping of the format's options, such as {'cluster_size': '64k'}", options)
        if not options:
            return []
        known = _known(call, ask)
        texts = [f"{name}={_text(name, value, known, format_)}" for name, value in options.items()]
    return ["-o", ",".join(text.replace(",", ",,") for text in texts)]


def _known(call: Call, ask: tuple[str, ...]) -> dict[str, str]:
    """Return the names of options, each with its type."""
    # With a file's name those of the host's file systems are told, too; it is not made.
    file = ["/disk"] if ask[0] == "create" else []
    return dict(_OPTION.findall(call.run(*ask, "-o", "help", *file).stdout))


def _text(name: object, value: object, known: Mapping[str, str], format_: str) -> str:
    if not isinstance(name, str):
        raise expected_type("the name of an option", name)
    if name in _ELSEWHERE:
        raise Rejected(f"the option '{name}' cannot be given here: {_ELSEWHERE[name]}")
    if _SECRET.match(name):
        raise Rejected(f"the option '{name}' needs a secret, which cannot be given here; qemu-img itself takes one")
    if name not in known:
        names = [each for each in known if each not in _ELSEWHERE and not _SECRET.match(each)]
        raise Rejected(
            f"{format_} has no option {shown(name)}; {did_you_mean(name, names)}"
            if names
            else f"{format_} has no option {shown(name)}, and no other"
        )
    if name == "subformat" and format_ == "vmdk" and value not in _ONE_FILE:
        raise Rejected(
            f"the option 'subformat': {shown(value)} is more than one file; {' and '.join(_ONE_FILE)} are one"
        )
    return _value(name, value, known[name])


def _value(name: str, value: object, kind: str) -> str:
    what = f"for the option '{name}' "
    match kind:
        case "bool":
            if value in ("on", "off"):
                return str(value)
            if not isinstance(value, bool):
                raise expected_type(f"{what}True or False", value)
            return "on" if value else "off"
        case "size":
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                raise expected_type(f"{what}a size such as '64k' (a number: bytes)", value)
            return str(0 if value in (0, "0") else read_size(value, "B"))
        case "num":
            if isinstance(value, bool) or not isinstance(value, int):
                raise expected_type(f"{what}a whole number", value)
            if value < 0:
                raise expected(f"{what}a whole number of at least 0", value)
            return str(value)
        case _:
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                raise expected_type(f"{what}text", value)
            check_sayable(str(value))
            return str(value)


def disk_size(call: Call, keyword: str, value: object) -> int:
    """Return the size of a disk in bytes; raises SpecError."""
    with call.argument(keyword, value):
        return _disk_size(value, "")


def _disk_size(value: object, sign: str) -> int:
    wanted = "a size such as '64M' (a number: bytes)"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(wanted, value)
    size = read_size(value, "B")
    if size < SECTOR and not sign:
        raise Rejected(f"a disk has at least {SECTOR} bytes, got {shown(value)}; write '64M' for 64 MiB")
    return size


def new_size(call: Call, value: object, old: int) -> int:
    """Return the size that a disk of ``old`` bytes gets, in whole sectors; ``value`` may begin with + or -.

    Raises SpecError.
    """
    with call.argument("size", value):
        sign = value.strip()[:1] if isinstance(value, str) else ""
        if sign in ("+", "-") and isinstance(value, str):
            change = _disk_size(value.strip()[1:].strip(), sign)
            size = old + change if sign == "+" else old - change
        else:
            if isinstance(value, int) and value < 0:
                raise Rejected(f"a change is text: size='{value}'")
            size = _disk_size(value, "")
        if size < SECTOR:
            raise Rejected(f"of {old} bytes less than {SECTOR} would be left, which is no disk any more")
        size = -(-size // SECTOR) * SECTOR
        if size > LARGEST:
            raise Rejected(f"a disk has at most {LARGEST} bytes")
    return size
