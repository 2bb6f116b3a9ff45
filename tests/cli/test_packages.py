"""What each package manager would run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_kvm.cli.packages import OPTIONAL, Manager, find_manager
from pytest_kvm.errors import HostError
from tests.qemu.fakes import program

NEEDED = {"qemu": "", "qemu-img": ""}
SUDO = ["sudo", "-n"]


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("pytest_kvm.cli.packages.os.geteuid", lambda: 0)
    on(monkeypatch, "x86_64")


def on(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("pytest_kvm.cli.packages.platform.machine", lambda: machine)


def manager(tmp_path: Path, name: str) -> Manager:
    program(tmp_path / "bin" / name, "exit 64")
    return find_manager()


def said(commands: list[list[str]]) -> list[str]:
    return [" ".join(command) for command in commands]


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        (
            "apt-get",
            [
                "env DEBIAN_FRONTEND=noninteractive apt-get update -q",
                "env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
                " qemu-system-x86 qemu-utils",
            ],
        ),
        ("dnf", ["dnf install -y --setopt=install_weak_deps=False qemu-kvm qemu-img"]),
        ("pacman", ["pacman -Syu --noconfirm --needed qemu-system-x86 qemu-img"]),
        (
            "zypper",
            [
                "zypper --non-interactive refresh",
                "zypper --non-interactive install --no-recommends qemu-x86 qemu-img",
            ],
        ),
        ("apk", ["apk add --update-cache qemu-system-x86_64 qemu-img"]),
        ("brew", ["brew install qemu"]),
    ],
)
def test_what_is_needed(name: str, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = manager(tmp_path, name)
    assert said(found.commands(NEEDED)) == commands
    monkeypatch.setattr("pytest_kvm.cli.packages.os.geteuid", lambda: 1000)
    # Homebrew refuses to run as root; all others have to.
    prefix = "" if name == "brew" else "sudo -n "
    assert said(found.commands(NEEDED)) == [prefix + command for command in commands]
    asking = prefix.replace(" -n", "")
    assert said(found.commands(NEEDED, ask=True)) == [asking + command for command in commands]


@pytest.mark.parametrize(
    ("name", "lacks", "packages"),
    [
        ("apt-get", set(), "ovmf ipxe-qemu qemu-system-common passt virtiofsd swtpm tesseract-ocr binutils gdb"),
        ("dnf", set(), "edk2-ovmf ipxe-roms-qemu qemu-common passt virtiofsd swtpm swtpm-tools tesseract binutils gdb"),
        ("pacman", {"ipxe"}, "edk2-ovmf qemu-common passt virtiofsd swtpm tesseract tesseract-data-eng binutils gdb"),
        ("zypper", set(), "qemu-ovmf-x86_64 qemu-ipxe qemu-tools passt virtiofsd swtpm tesseract-ocr binutils gdb"),
        (
            "apk",
            {"ipxe"},
            "ovmf qemu-bridge-helper passt virtiofsd swtpm tesseract-ocr tesseract-ocr-data-eng binutils gdb",
        ),
        ("brew", {"bridge-helper", "passt", "virtiofsd", "addr2line"}, "qemu swtpm tesseract gdb"),
    ],
)
def test_what_some_tests_need(name: str, lacks: set[str], packages: str, tmp_path: Path) -> None:
    found = manager(tmp_path, name)
    assert set(OPTIONAL) - set(found.packages) == lacks
    has = {each: "" for each in OPTIONAL if each not in lacks}
    assert said(found.commands(has))[-1].endswith(f" {packages}")


@pytest.mark.parametrize(
    ("name", "machine", "packages"),
    [
        ("apt-get", "aarch64", "qemu-system-arm qemu-efi-aarch64"),
        ("apt-get", "riscv64", "qemu-system-riscv ovmf"),
        ("apt-get", "s390x", "qemu-system ovmf"),
        ("dnf", "aarch64", "qemu-kvm edk2-aarch64"),
        ("pacman", "aarch64", "qemu-system-aarch64 edk2-aarch64"),
        ("zypper", "aarch64", "qemu-arm qemu-uefi-aarch64"),
        ("zypper", "s390x", "qemu qemu-ovmf-x86_64"),
        ("apk", "aarch64", "qemu-system-aarch64 aavmf"),
    ],
)
def test_other_architectures(
    name: str, machine: str, packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, machine)
    assert said(manager(tmp_path, name).commands({"qemu": "", "uefi": ""}))[-1].endswith(f" {packages}")


def test_the_systems_own_comes_first(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "brew", "exit 64")
    assert manager(tmp_path, "apt-get").name == "apt"


def test_a_package_that_was_named(tmp_path: Path) -> None:
    commands = manager(tmp_path, "brew").commands({"qemu": "", "gpg": "gnupg", "/some/file": "gnupg"})
    assert said(commands) == ["brew install qemu gnupg"]


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
def test_apt_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    # Debian 12 has virtiofsd in QEMU's own package.
    names = {name: "" for name in ("qemu", "qemu-img", *OPTIONAL) if name != "virtiofsd"}
    command = find_manager().commands(names)[-1]
    command = [*command[command.index("apt-get") :], "--simulate"]  # needs no root
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_has_no_package(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"^no package of brew is known that has passt, virtiofsd\n"):
        manager(tmp_path, "brew").commands({"qemu": "", "passt": "", "virtiofsd": ""})
