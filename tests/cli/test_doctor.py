"""What is here, what is missing, and its installation."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_kvm.cli import main
from tests.qemu.fakes import ANSWERS, program

UPDATE = "apt-get update -q"
INSTALL = "apt-get install -y -q --no-install-recommends"
ENVIRONMENT = "env DEBIAN_FRONTEND=noninteractive"


class Host(NamedTuple):
    """A host on which there is nothing but what a test puts there."""

    bin: Path
    shelf: Path
    log: Path
    capsys: pytest.CaptureFixture[str]

    def put(self, name: str, script: str = "") -> Path:
        return program(self.bin / name, script)

    def put_qemu(self) -> None:
        self.put("qemu-system-x86_64", ANSWERS)
        self.put("qemu-img")

    def put_apt(self, script: str = "") -> None:
        """Add a package manager that writes down what it is told and installs what is on the shelf."""
        copy = f"{shutil.which('cp', path='/usr/bin:/bin')} -p {self.shelf}/* {self.bin}"
        told = f'echo "$DEBIAN_FRONTEND: apt-get $*" >>{self.log}\n{script}\n'
        self.put("apt-get", f'{told}if [ "$1" = install ]; then {copy}; fi\n')

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def doctor(self, *arguments: str) -> tuple[int, list[str], list[str]]:
        """Run the command; return its status and the lines of its stdout and stderr."""
        status = main(["doctor", *arguments])
        out, err = self.capsys.readouterr()
        return status, out.splitlines(), err.splitlines()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    made = Host(tmp_path / "bin", tmp_path / "shelf", tmp_path / "log", capsys)
    made.bin.mkdir()
    (made.bin / "env").symlink_to(shutil.which("env") or "/usr/bin/env")
    program(made.shelf / "qemu-system-x86_64", ANSWERS)
    program(made.shelf / "qemu-img", "")
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    for name, value in {
        "qemu.binary.platform.machine": lambda: "x86_64",
        "qemu.binary._LIBEXEC": str(tmp_path / "libexec"),
        "host.device.DEVICE": str(tmp_path / "kvm"),
        "host.device.CONTAINER_MARKS": (),
        "host.device.CPUINFO": tmp_path / "cpuinfo",
        "cli.packages.os.geteuid": lambda: 0,
    }.items():
        monkeypatch.setattr(f"pytest_kvm.{name}", value)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return made


def test_all_is_here(host: Host, tmp_path: Path) -> None:
    host.put_qemu()
    status, out, err = host.doctor()
    assert (status, err) == (0, [])
    assert out == [
        f"cache        {tmp_path}/cache",
        f"QEMU         9.1.2 ({host.bin}/qemu-system-x86_64), sandbox: yes",
        f"accelerator  tcg (kvm: no {tmp_path}/kvm: the CPU shows no VT-x or AMD-V)",
    ]


def test_nothing_is_here(host: Host) -> None:
    status, out, err = host.doctor()
    assert (status, err) == (1, [])
    assert out[1].startswith("QEMU         no QEMU found (looked for qemu-system-x86_64, ")
    assert out[-3:] == [
        "missing      qemu",
        "missing      qemu-img",
        "             pytest-kvm doctor --install installs it",
    ]


def test_qemu_that_is_named(host: Host, tmp_path: Path) -> None:
    host.put("qemu-img")
    path = program(tmp_path / "my qemu", ANSWERS)
    assert host.doctor()[0] == 1
    status, out, _ = host.doctor("--qemu", str(path))
    assert status == 0
    assert f"({path})" in out[1]


def test_a_program_more(host: Host) -> None:
    host.put_qemu()
    status, out, _ = host.doctor("--also", "gpg=gnupg", "--also", "env=coreutils")
    assert status == 1
    assert out[-2:] == ["missing      gpg (package gnupg)", "             pytest-kvm doctor --install installs it"]


def test_installing_needs_a_word(host: Host) -> None:
    host.put_apt()
    status, out, err = host.doctor("--install")
    assert status == 1
    assert out == [
        f"installing   {ENVIRONMENT} {UPDATE}; {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils",
    ]
    assert err == ["             not asked for (no terminal): say --yes"]
    assert host.told() == []


@pytest.mark.parametrize(("answer", "status"), [("y", 0), (" Yes ", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_it_asks(answer: str, status: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put_apt()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert host.doctor("--install")[0] == status
    assert bool(host.told()) is (status == 0)


def test_installing(host: Host) -> None:
    host.put_apt()
    status, out, err = host.doctor("--install", "--yes")
    assert (status, err) == (0, [])
    assert out[0].startswith("installing   ")
    assert out[2].startswith("QEMU         9.1.2 (")
    assert not any(line.startswith("missing") for line in out)
    assert host.told() == [
        f"noninteractive: {UPDATE}",
        f"noninteractive: {INSTALL} qemu-system-x86 qemu-utils",
    ]


def test_installing_only_what_is_missing(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    program(host.shelf / "gpg", "")
    assert host.doctor("--install", "--yes", "--also", "gpg=gnupg")[0] == 0
    assert host.told()[-1] == f"noninteractive: {INSTALL} gnupg"


def test_installing_when_all_is_here(host: Host) -> None:
    host.put_qemu()
    host.put_apt()
    status, out, _ = host.doctor("--install", "--yes")
    assert status == 0
    assert host.told() == []
    assert not any(line.startswith("installing") for line in out)


def test_still_missing_after_installing(host: Host) -> None:
    (host.shelf / "qemu-img").unlink()
    host.put_apt()
    status, out, _ = host.doctor("--install", "--yes")
    assert status == 1
    assert out[-1] == "missing      qemu-img"


def test_another_user_than_root(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.cli.packages.os.geteuid", lambda: 1000)
    host.put_apt()
    host.put("sudo", f'echo "sudo $*" >>{host.log}\nshift\nexec "$@"\n')
    status, out, _ = host.doctor("--install", "--yes")
    assert status == 0
    assert out[0] == (
        f"installing   sudo -n {ENVIRONMENT} {UPDATE}; sudo -n {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils"
    )
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
    assert err[0].startswith("pytest-kvm: cannot install qemu, qemu-img: ")
    assert err[1] == f"  run as root: {ENVIRONMENT} {UPDATE}"
    assert host.told() == []


def test_a_package_manager_that_fails(host: Host) -> None:
    host.put_apt('if [ "$1" = install ]; then exit 100; fi')
    status, _, err = host.doctor("--install", "--yes")
    assert status == 1
    assert err[0].startswith("pytest-kvm: cannot install qemu, qemu-img: ")
    assert "status 100" in err[0]
    assert err[1] == f"  run as root: {ENVIRONMENT} {INSTALL} qemu-system-x86 qemu-utils"


def test_an_unknown_package_manager(host: Host) -> None:
    status, out, err = host.doctor("--install", "--yes")
    assert (status, out) == (1, [])
    assert err == [
        "pytest-kvm: no package manager that can be driven was found (looked for apt-get)",
        "  install QEMU's system emulator and qemu-img yourself",
    ]


@pytest.mark.parametrize(
    ("machine", "package"),
    [("aarch64", "qemu-system-arm"), ("riscv64", "qemu-system-riscv"), ("s390x", "qemu-system")],
)
def test_packages_of_other_architectures(
    machine: str, package: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_kvm.cli.packages.platform.machine", lambda: machine)
    host.put_apt()
    _, out, _ = host.doctor("--install")
    assert out[0].endswith(f" {package} qemu-utils")


def test_also_takes_any_file_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").touch()
    main(["doctor", "--also", f"{tmp_path}/there=one", "--also", f"{tmp_path}/away=other"])
    said = capsys.readouterr().out
    assert f"missing      {tmp_path}/away (package other)\n" in said
    assert "there" not in said
