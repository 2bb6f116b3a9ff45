"""The boot order as QEMU's ``-boot`` writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_kvm.spec.text import split_options
from pytest_kvm.spec.wording import Rejected, expected, expected_type, parser_of, shown, whole_number

BOOT_KEYS = ("order", "once", "menu", "splash", "splash-time", "reboot-timeout", "strict")
BOOT_WANTED = "QEMU's text such as 'dc' or 'order=dc,once=n,menu=on'"
SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class Boot:
    """What to boot from; None is QEMU's default.

    ``order`` and ``once`` are drive letters (a, b floppy; c disk; d CD-ROM; n to p network);
    ``splash_time`` and ``reboot_timeout`` are in milliseconds (-1: do not reboot).
    """

    order: str | None = None
    once: str | None = None
    menu: bool | None = None
    splash: str | None = None
    splash_time: int | None = None
    reboot_timeout: int | None = None
    strict: bool | None = None

    def __str__(self) -> str:
        """Return QEMU's text."""
        given = {key: getattr(self, key.replace("-", "_")) for key in BOOT_KEYS}
        words = {True: "on", False: "off"}
        said = {key: words[value] if isinstance(value, bool) else str(value) for key, value in given.items()}
        return ",".join(f"{key}={text.replace(',', ',,')}" for key, text in said.items() if given[key] is not None)


def read_boot(value: str) -> Boot:
    """Return the boot order; raises Rejected."""
    if not isinstance(value, str):
        raise expected_type(BOOT_WANTED, value)
    if not value.strip():
        raise expected(BOOT_WANTED, value)
    options = split_options(value, keys=BOOT_KEYS, first="order")
    for key in ("order", "once"):
        _check_letters(key, options.get(key, ""))
    return Boot(
        order=options.get("order"),
        once=options.get("once"),
        menu=_switch(options, "menu"),
        splash=options.get("splash"),
        splash_time=_milliseconds(options, "splash-time", 0),
        reboot_timeout=_milliseconds(options, "reboot-timeout", -1),
        strict=_switch(options, "strict"),
    )


def _check_letters(key: str, letters: str) -> None:
    # QEMU's bootdevice.c, validate_bootdevices.
    for letter in letters:
        if not re.fullmatch("[a-p]", letter):
            raise Rejected(f"{key}: {shown(letter)} is no boot device; they are a to p (c disk, d CD-ROM, n network)")
        if letters.count(letter) > 1:
            raise Rejected(f"{key}: boot device '{letter}' is given twice in {shown(letters)}")


def _switch(options: dict[str, str], key: str) -> bool | None:
    text = options.get(key)
    if text is None:
        return None
    if text not in SWITCH:
        raise Rejected(f"{key} must be on or off, got {shown(text)}")
    return SWITCH[text]


def _milliseconds(options: dict[str, str], key: str, least: int) -> int | None:
    text = options.get(key)
    if text is None:
        return None
    number = whole_number(text)
    if number is None or not least <= number <= 0xFFFF:
        raise Rejected(f"{key} must be from {least} to 65535 milliseconds, got {shown(text)}")
    return number


parse_boot = parser_of("boot")(read_boot)
