"""Which of the installed firmware a machine gets, and what is said where none fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.machine import firmware
from pytest_kvm.machine.firmware import VARIABLES, find_firmware, with_variables
from pytest_kvm.qemu.plan import PlannedFirmware
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary

QEMU = replace(
    binary(Path("/usr/bin/qemu-system-x86_64")), machines=frozenset({"q35", "pc-q35-7.2", "pc", "pc-i440fx-7.2"})
)
Q35, BOTH, MICROVM = ["pc-q35-*"], ["pc-i440fx-*", "pc-q35-*"], ["microvm"]
KEYS = ["requires-smm", "secure-boot", "enrolled-keys"]


class Installed:
    """Firmware that is described in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, machines: list[str], features: list[str], **mapping: Any) -> Path:
        code = self.folder / f"{name}.fd"
        for file in (code, code.with_suffix(".vars")):
            file.write_text(file.name)
        flash = {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(code.with_suffix(".vars")), "format": "raw"},
        }
        entry = {
            "description": name,
            "interface-types": ["uefi"],
            "mapping": mapping or flash,
            "targets": [{"architecture": "x86_64", "machines": machines}],
            "features": features,
        }
        (self.folder / f"{name}.json").write_text(json.dumps(entry))
        return code


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.setattr(firmware, "directories", lambda _: [tmp_path])
    return Installed(tmp_path)


def find(kind: str | Path, machine: str | None = None) -> PlannedFirmware:
    found = find_firmware(VMSpec(firmware=kind, machine=machine), QEMU)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [None, "bios"])
def test_qemus_own(kind: str | None) -> None:
    assert find_firmware(VMSpec(firmware=kind), QEMU) is None


def test_a_file() -> None:
    assert find("/f/SEABIOS.bin") == PlannedFirmware(code=Path("/f/SEABIOS.bin"), flash=False)


def test_by_what_it_can(installed: Installed) -> None:
    keys = installed.add("10-keys", Q35, KEYS)
    installed.add("20-secure", Q35, ["requires-smm", "secure-boot"])
    installed.add("30-confidential", Q35, ["amd-sev-snp"], device="memory", filename=str(keys))
    plain = installed.add("40-plain", BOTH, [])
    installed.add("50-later", BOTH, [])
    for machine in (None, "pc", "q35,hpet=off", "pc-i440fx-6.0"):
        found = find("uefi", machine)
        assert (found.code, found.template, found.smm, found.secure) == (
            plain,
            plain.with_suffix(".vars"),
            False,
            False,
        )
    secure = find("uefi-secure", "type=q35")
    assert (secure.code, secure.smm, secure.secure) == (keys, True, True)
    assert not find("uefi-secure", "q35,smm=on").smm


def test_without_keys_where_nothing_else_is(installed: Installed) -> None:
    installed.add("10-keys", Q35, KEYS)
    secure = installed.add("20-secure", Q35, ["requires-smm", "secure-boot"])
    assert (find("uefi").code, find("uefi").smm) == (secure, True)


def test_memory_and_formats(installed: Installed) -> None:
    code = installed.add("10-microvm", MICROVM, [], device="memory", filename=str(installed.folder / "10-microvm.fd"))
    assert find("uefi", "microvm") == PlannedFirmware(code=code, flash=False)
    executable = {"filename": str(code), "format": "qcow2"}
    installed.add("20-qcow2", Q35, [], device="flash", executable=executable, **{"nvram-template": executable})
    found = find("uefi")
    assert (found.code_format, found.variables_format, found.template) == ("qcow2", "qcow2", code)


def test_none_that_fits(installed: Installed) -> None:
    hint = "\n  install it with 'pytest-kvm doctor --install --with uefi', or name a file: firmware='/path/OVMF.fd'"
    with pytest.raises(HostError) as caught:
        find("uefi")
    assert str(caught.value) == (
        "vm(firmware='uefi'): no UEFI firmware for machine 'q35' is installed; there is none at all" + hint
    )
    code = installed.add("10-keys", Q35, KEYS)
    with pytest.raises(HostError) as caught:
        find("uefi", "microvm")
    assert str(caught.value) == (
        "vm(firmware='uefi'): no UEFI firmware for machine 'microvm' is installed; there is only\n"
        f"{code}: for pc-q35-* (secure boot, keys)" + hint
    )
    code.unlink()
    with pytest.raises(HostError, match="no UEFI firmware with secure boot and enrolled keys for machine 'q35'"):
        find("uefi-secure")


@pytest.mark.parametrize("machine", ["pc", "microvm", "pc-i440fx-7.2"])
def test_secure_boot_where_it_cannot_be(machine: str) -> None:
    with pytest.raises(SpecError) as caught:
        find("uefi-secure", machine)
    assert str(caught.value) == (
        f"vm(machine={machine!r}, firmware='uefi-secure'): secure boot keeps its variables from the guest with SMM, "
        "for which OVMF needs the machine q35"
    )


def test_variables_are_copied(tmp_path: Path, installed: Installed) -> None:
    installed.add("10-plain", Q35, [])
    (tmp_path / "machine").mkdir()
    found = with_variables(find("uefi"), tmp_path / "machine")
    assert found is not None
    assert found.variables == tmp_path / "machine" / VARIABLES
    assert found.variables.read_text() == "10-plain.vars"
    found.variables.write_text("changed")
    again = with_variables(found, tmp_path / "machine")
    assert again == found
    assert found.variables.read_text() == "10-plain.vars"
    (tmp_path / "10-plain.vars").unlink()
    with pytest.raises(HostError, match=r"10-plain\.vars cannot be copied to .*: No such file or directory"):
        with_variables(found, tmp_path / "machine")
    assert with_variables(None, tmp_path) is None
