"""What stands on a machine's board: TPM, watchdog, what firmware and guest are told by fw_cfg and SMBIOS."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence

from pytest_kvm.spec.reference import FixtureReference
from pytest_kvm.spec.values import path
from pytest_kvm.spec.wording import Rejected, check_sayable, did_you_mean, expected, expected_type, listed, shown

TPM = ("2.0", "1.2")
# What QEMU does when a watchdog fires (qapi/run-state.json, WatchdogAction).
WATCHDOG = ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none")
# Intel's on PCI, and the one that a q35's chip set has.
WATCHDOGS = ("i6300esb", "iTCO")
# QEMU's include/hw/nvram/fw_cfg.h, FW_CFG_MAX_FILE_PATH; docs/specs/fw_cfg.rst has who may use which names.
_LONGEST_NAME = 55
_NAME = re.compile(r"opt/[\x21-\x7e]+")
# The types of SMBIOS tables that QEMU makes, and their fields (hw/smbios/smbios.c, qemu_smbios_type*_opts).
SMBIOS: Mapping[int, Sequence[str]] = {
    0: ("vendor", "version", "date", "release", "uefi"),
    1: ("manufacturer", "product", "version", "serial", "uuid", "sku", "family"),
    2: ("manufacturer", "product", "version", "serial", "asset", "location"),
    3: ("manufacturer", "version", "serial", "asset", "sku"),
    4: (
        *("sock_pfx", "manufacturer", "version", "serial", "asset", "part", "max-speed", "current-speed"),
        *("processor-id", "processor-family"),
    ),
    8: ("internal_reference", "external_reference", "connector_type", "port_type"),
    9: ("slot_designation", "slot_type", "slot_data_bus_width", "current_usage", "slot_length", "slot_id"),
    11: ("value",),
    17: ("loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed"),
    41: ("designation", "kind", "instance", "pcidev"),
}
# There may be several of these; of a field with several values, type 11 has one table.
_SEVERAL = (8, 9, 41)
_LISTS = (11,)


def check_watchdog(value: object) -> None:
    """Accept an action of QEMU's, alone or behind a model's name; raises Rejected."""
    wanted = "an action such as 'pause', or a watchdog and its action such as 'iTCO,pause'"
    if not isinstance(value, str):
        raise expected_type(wanted, value)
    model, action = read_watchdog(value)
    if model not in WATCHDOGS:
        raise Rejected(f"unknown watchdog {shown(model)}; {did_you_mean(model, WATCHDOGS)}")
    if action not in WATCHDOG:
        raise Rejected(f"unknown action {shown(action)}; {did_you_mean(action, WATCHDOG)}")


def read_watchdog(text: str) -> tuple[str, str]:
    """Return the model of a watchdog, and its action."""
    model, comma, action = text.rpartition(",")
    return (model if comma else WATCHDOGS[0]), action


def check_tpm(value: object) -> None:
    """Accept a version of TPM, True (2.0) and False; raises Rejected."""
    wanted = "True, False, '2.0' or '1.2'"
    if not isinstance(value, (bool, str)):
        raise expected_type(wanted, value)
    if isinstance(value, str) and value not in TPM:
        raise expected(wanted, value)


def check_fw_cfg(value: object) -> None:
    """Accept a mapping of names to contents; raises Rejected."""
    if not isinstance(value, Mapping):
        raise expected_type("a mapping such as {'opt/org.example/name': 'text'}", value)
    for name, content in value.items():
        if not isinstance(name, str):
            raise expected_type("the name of a fw_cfg file", name)
        if not _NAME.fullmatch(name):
            raise Rejected(f"fw_cfg {shown(name)}: names begin with 'opt/', and have no spaces: opt/org.example/name")
        if len(name) > _LONGEST_NAME:
            raise Rejected(
                f"fw_cfg {shown(name)}: {len(name)} characters are more than QEMU has room for, {_LONGEST_NAME}"
            )
        _check_content(name, content)


def _check_content(name: str, content: object) -> None:
    if isinstance(content, FixtureReference):
        return
    if isinstance(content, os.PathLike):
        path(content)
    elif not isinstance(content, (str, bytes)):
        raise expected_type(f"text, bytes or a pathlib.Path for {name}", content)
    elif not content:
        raise Rejected(f"{name} is empty, which QEMU does not take")
    elif isinstance(content, str):
        check_sayable(content)


def check_smbios(value: object) -> None:
    """Accept a mapping of SMBIOS types to their fields; raises Rejected."""
    if not isinstance(value, Mapping):
        raise expected_type("a mapping such as {1: {'serial': 'S1'}}", value)
    for number, tables in value.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise expected_type("the number of an SMBIOS type", number)
        if number not in SMBIOS:
            raise Rejected(f"QEMU has no SMBIOS type {number}; there are {listed(map(str, SMBIOS))}")
        if isinstance(tables, FixtureReference):
            continue
        if isinstance(tables, Sequence) and not isinstance(tables, (str, bytes)):
            if number not in _SEVERAL:
                raise Rejected(f"there is one table of SMBIOS type {number}; several of {listed(map(str, _SEVERAL))}")
            for table in tables:
                _check_table(number, table)
        else:
            _check_table(number, tables)


def _check_table(number: int, table: object) -> None:
    if not isinstance(table, Mapping):
        raise expected_type(f"a mapping of the fields of SMBIOS type {number}", table)
    for field, value in table.items():
        if field not in SMBIOS[number]:
            raise Rejected(
                f"SMBIOS type {number} has no field {shown(field)}; {did_you_mean(str(field), SMBIOS[number])}"
            )
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and number in _LISTS:
            for each in value:
                _check_field(number, field, each)
        else:
            _check_field(number, field, value)


def _check_field(number: int, field: str, value: object) -> None:
    if isinstance(value, FixtureReference):
        return
    if isinstance(value, bool) and field == "uefi":
        return
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise expected_type(f"text or a number for {field} of SMBIOS type {number}", value)
    if isinstance(value, str):
        check_sayable(value)
    if (number, field) == (1, "uuid"):
        try:
            uuid.UUID(str(value))
        except ValueError:
            raise expected("a UUID for uuid of SMBIOS type 1", value) from None


def smbios_tables(smbios: Mapping[int, object]) -> Iterator[tuple[int, list[tuple[str, object]]]]:
    """Yield each table of checked ``smbios``: its type, and its fields with their values, of which some come again."""
    for number, tables in smbios.items():
        for table in [tables] if isinstance(tables, Mapping) else tables if isinstance(tables, (list, tuple)) else []:
            pairs: list[tuple[str, object]] = []
            for field, value in table.items():
                pairs += [(field, each) for each in (value if isinstance(value, (list, tuple)) else [value])]
            yield number, pairs
