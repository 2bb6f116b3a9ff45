"""What is here, what is missing, what mends it, and its installation."""

from __future__ import annotations

import io
import json
import subprocess

import pytest

from pytest_kvm.cli import checks, main
from pytest_kvm.cli.checks.row import Row
from pytest_kvm.cli.packages import OPTIONAL
from tests.cli.hosts import Host
from tests.qemu.fakes import program

UPDATE = "apt-get update -q"
INSTALL = "apt-get install -y -q --no-install-recommends"
ENVIRONMENT = "env DEBIAN_FRONTEND=noninteractive"
ASKED = [
    f"to install: {ENVIRONMENT} {UPDATE}",
    f"to install: {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils",
]


def test_all_is_here(host: Host) -> None:
    host.put_qemu()
    status, out, err = host.doctor()
    assert (status, err) == (0, [])
    assert out[:3] == [
        "QEMU",
        f"  ok       qemu          9.1.2 ({host.bin}/qemu-system-x86_64), used",
        f"  ok       qemu-img      {host.bin}/qemu-img - makes the disks of machines",
    ]
    kvm = out.index("Accelerators") + 1
    assert out[kvm : kvm + 2] == [
        f"  missing  kvm           no {host.root}/kvm: the CPU shows no VT-x or AMD-V"
        " - guests run at the speed of the CPU",
        "                         fix: switch it on in the firmware's setup, where the CPU has it",
    ]
    assert [line for line in out if not line.startswith(" ")][-2:] == [
        "Not every test needs uefi, ipxe, bridge-helper, passt, virtiofsd, swtpm, tesseract, addr2line, gdb:"
        " pytest-kvm doctor --install --with NAME",
        "Machines can run here.",
    ]


def test_nothing_is_here(host: Host) -> None:
    status, out, err = host.doctor()
    assert (status, err) == (1, [])
    assert out[1].startswith("  missing  qemu          no QEMU found (looked for qemu-system-x86_64, ")
    assert out[2].startswith("                         fix: install it with 'pytest-kvm doctor --install'")
    assert out[3] == "  missing  qemu-img      not there - makes the disks of machines"
    assert out[-2:] == [
        "No machine can run here: qemu is missing, qemu-img is missing.",
        "pytest-kvm doctor --install installs what is missing.",
    ]


def test_json(host: Host) -> None:
    host.put_qemu()
    rows = host.rows()
    assert rows["qemu"] == {
        "group": "QEMU",
        "name": "qemu",
        "state": "ok",
        "needed": True,
        "text": f"9.1.2 ({host.bin}/qemu-system-x86_64), used",
        "purpose": "",
        "fix": "",
        "data": {"path": f"{host.bin}/qemu-system-x86_64", "version": "9.1.2", "used": True},
    }
    assert rows["kvm"]["data"] == {"used": False}
    assert rows["cache"]["data"]["path"] == str(host.root / "cache")
    assert rows["cache"]["data"]["free"] > 0
    assert not any(row["needed"] for row in rows.values() if row["state"] in ("missing", "broken"))


def test_this_host(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    rows = {row["name"]: row for row in reversed(told["rows"])}  # of several QEMUs, the one that is used
    assert rows["qemu"]["data"]["version"] in subprocess.check_output(
        [rows["qemu"]["data"]["path"], "-version"], text=True
    )
    assert [rows[name]["data"]["used"] for name in ("kvm", "tcg")].count(True) == 1
    assert (rows["kvm"]["state"] == "ok") is rows["kvm"]["data"]["used"]
    assert rows["kvm"]["state"] == "ok" or rows["kvm"]["fix"]
    assert {row["state"] for row in told["rows"] if row["name"] == "check"} == set()


def test_everything_that_can_be_installed_is_looked_for(host: Host) -> None:
    host.put_qemu()
    rows = host.rows()
    assert {name for name in OPTIONAL if rows[name]["state"] == "missing"} == set(OPTIONAL)
    assert all(rows[name]["purpose"] for name in OPTIONAL)


def test_a_check_that_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[Row]:
        raise RuntimeError("unforeseen")

    host.put_qemu()
    monkeypatch.setitem(checks._CHECKS, "Network", fail)
    rows = host.rows()
    assert rows["check"]["state"] == "broken"
    assert rows["check"]["text"] == "cannot be looked at: RuntimeError: unforeseen"
    assert "swtpm" in rows


def test_installing_needs_a_word(host: Host) -> None:
    host.put_apt()
    status, out, err = host.doctor("--install")
    assert (status, out) == (1, [])
    assert err == [*ASKED, "not installed: there is no terminal to ask at; say --yes"]
    assert host.told() == []


@pytest.mark.parametrize(("answer", "status"), [("y", 0), (" Yes ", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_it_asks(answer: str, status: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    host.put_apt()
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    code, _, err = host.doctor("--install")
    assert code == status
    assert err[:2] == ASKED
    assert err[2].startswith("go on? [y/N] ")
    assert bool(host.told()) is (status == 0)


@pytest.mark.parametrize(("value", "installs"), [("true", True), ("1", True), ("", False), ("false", False)])
def test_in_ci_it_does_not_ask(value: str, installs: bool, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    host.put_apt()
    assert host.doctor("--install")[0] == (0 if installs else 1)
    assert bool(host.told()) is installs


def test_installing(host: Host) -> None:
    host.put_apt()
    status, out, err = host.doctor("--install", "--yes")
    assert status == 0
    assert err == [*ASKED, "unpacking", "unpacking"]  # stdout is for what was found
    assert out[1].startswith("  ok       qemu          9.1.2 (")
    assert out[-1] == "Machines can run here."
    assert host.told() == [
        f"noninteractive: {UPDATE}",
        f"noninteractive: {INSTALL} qemu-system-x86 qemu-utils",
    ]


def test_installing_and_json(host: Host) -> None:
    host.put_apt()
    assert host.rows("--install", "--yes")["qemu"]["state"] == "ok"


def test_installing_only_what_is_missing(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    program(host.shelf / "gpg", "")
    assert host.doctor("--install", "--yes", "--also", "gpg=gnupg")[0] == 0
    assert host.told()[-1] == f"noninteractive: {INSTALL} gnupg"


def test_installing_what_some_tests_need(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    host.put("swtpm")
    program(host.shelf / "passt", "")
    assert host.doctor("--install", "--yes", "--with", "passt", "--with", "swtpm")[0] == 0
    assert host.told()[-1] == f"noninteractive: {INSTALL} passt"
    assert host.rows()["passt"]["state"] == "ok"


def test_installing_all_that_any_test_needs(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    host.doctor("--install", "--yes", "--with", "all")
    packages = "ovmf ipxe-qemu qemu-system-common passt virtiofsd swtpm tesseract-ocr gdb"
    assert set(host.told()[-1].split()) >= set(packages.split())


def test_what_cannot_be_installed(host: Host) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--install", "--with", "coffee"])
    assert caught.value.code == 2
    assert "invalid choice: 'coffee'" in host.capfd.readouterr().err


def test_installing_when_all_is_here(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    status, _, err = host.doctor("--install", "--yes")
    assert (status, err) == (0, [])
    assert host.told() == []


def test_still_missing_after_installing(host: Host) -> None:
    (host.shelf / "qemu-img").unlink()
    host.put_apt()
    status, out, _ = host.doctor("--install", "--yes")
    assert status == 1
    assert out[-1] == "No machine can run here: qemu-img is missing."


def test_another_user_than_root(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.cli.packages.os.geteuid", lambda: 1000)
    host.put_apt()
    host.put("sudo", f'echo "sudo $*" >>{host.log}\nshift\nexec "$@"\n')
    status, _, err = host.doctor("--install", "--yes")
    assert status == 0
    assert err[0] == f"to install: sudo -n {ENVIRONMENT} {UPDATE}"
    assert host.told() == [
        f"sudo -n {ENVIRONMENT} {UPDATE}",
        f"noninteractive: {UPDATE}",
        f"sudo -n {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils",
        f"noninteractive: {INSTALL} qemu-system-x86 qemu-utils",
    ]


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_another_user_without_sudo(sudo: str | None, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.cli.packages.os.geteuid", lambda: 1000)
    host.put_apt()
    if sudo is not None:
        host.put("sudo", sudo)
    status, _, err = host.doctor("--install", "--yes")
    assert status == 1
    assert err[2].startswith("pytest-kvm: cannot install qemu, qemu-img: ")
    assert err[3] == f"  run as root: {ENVIRONMENT} {UPDATE}"
    assert host.told() == []


def test_a_package_manager_that_fails(host: Host) -> None:
    host.put_apt('if [ "$1" = install ]; then exit 100; fi')
    status, _, err = host.doctor("--install", "--yes")
    assert status == 1
    assert err[-2].startswith("pytest-kvm: cannot install qemu, qemu-img: ")
    assert "status 100" in err[-2]
    assert err[-1] == f"  run as root: {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils"


def test_an_unknown_package_manager(host: Host) -> None:
    status, out, err = host.doctor("--install", "--yes")
    assert (status, out) == (1, [])
    assert err == [
        "pytest-kvm: no package manager that can be driven was found"
        " (looked for apt-get, dnf, pacman, zypper, apk, brew)",
        "  install QEMU's system emulator and qemu-img yourself",
    ]
