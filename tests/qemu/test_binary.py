"""Finding QEMU and asking it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.errors import QEMUNotFound
from pytest_kvm.qemu import binary as module
from pytest_kvm.qemu.binary import candidates, find_qemu
from tests.qemu.fakes import ANSWERS, program


def counting(path: Path, log: Path, answers: str = ANSWERS) -> Path:
    """Make a QEMU that writes down what it is asked."""
    return program(path, f'echo "$*" >>{log}\n{answers}')


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    # A name that is looked for at its own place, outside PATH.
    monkeypatch.setattr(module, "_LIBEXEC", str(tmp_path / "libexec" / "qemu-kvm"))
    return folder


def test_the_answers_are_read(tmp_path: Path) -> None:
    path = program(tmp_path / "qemu", ANSWERS)
    found = find_qemu(str(path))
    assert found.path == path
    assert found.version == (9, 1, 2)
    assert found.version_text == "9.1.2"
    assert found.devices == {"virtio-rng-pci", "pvpanic-pci"}
    assert found.machines == {"q35", "none"}
    assert found.sandbox is True


def test_a_version_of_two_parts_and_no_sandbox(tmp_path: Path) -> None:
    answers = ANSWERS.replace("9.1.2 (Debian 1:9.1.2+ds-1)", "5.2").replace("-sandbox", "-s")
    found = find_qemu(str(program(tmp_path / "qemu", answers)))
    assert (found.version, found.version_text, found.sandbox) == ((5, 2, 0), "5.2", False)


def test_the_real_one() -> None:
    found = find_qemu()
    assert found.path.is_absolute()
    assert found.version >= (5, 0)
    assert {"q35", "pc", "none"} <= found.machines
    assert {"virtio-net-pci", "virtserialport"} <= found.devices


@pytest.mark.parametrize("number", range(4))
def test_candidates_are_found_in_order(number: int, only: Path) -> None:
    names = candidates()
    for name in names[number:]:
        program(only / name, ANSWERS)  # joined to an absolute name it is that name
    assert find_qemu().path == only / names[number]


def test_a_name_on_path(only: Path) -> None:
    path = program(only / "my-qemu", ANSWERS)
    assert find_qemu("my-qemu").path == path


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "qemu", ANSWERS)
    monkeypatch.chdir(tmp_path)
    assert find_qemu("./qemu").path == path


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "qemu", ANSWERS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_qemu("~/qemu").path == path


def test_none_is_there(only: Path) -> None:
    with pytest.raises(QEMUNotFound) as caught:
        find_qemu()
    first, hint = str(caught.value).splitlines()
    assert first == f"no QEMU found (looked for {', '.join(candidates())})"
    assert "pytest-kvm doctor --install" in hint


@pytest.mark.usefixtures("only")
def test_a_name_that_is_nowhere() -> None:
    with pytest.raises(QEMUNotFound, match=r"^--kvm-qemu=qemu-of-mine: no such executable\n"):
        find_qemu("qemu-of-mine")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'GNU coreutils 9.1'", r"{path} does not say which QEMU it is: '-version' prints 'GNU coreutils 9.1\n'"),
        ("echo 'no such option' >&2; exit 3", "{path} -version failed with status 3: no such option"),
        ("", "{path} does not say which QEMU it is: '-version' prints ''"),
    ],
)
def test_something_else_than_qemu(script: str, text: str, tmp_path: Path) -> None:
    path = program(tmp_path / "thing", script)
    with pytest.raises(QEMUNotFound) as caught:
        find_qemu(str(path))
    assert str(caught.value).splitlines()[0] == text.format(path=path)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(b"\x7fELF, and then nothing")
    path.chmod(0o755)
    with pytest.raises(QEMUNotFound, match=f"^{path} cannot be run: "):
        find_qemu(str(path))


def test_answers_are_remembered(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path, memory = counting(tmp_path / "qemu", log), tmp_path / "memory"
    first = find_qemu(str(path), memory=memory)
    asked = log.read_text()
    assert asked.splitlines() == ["-version", "-device help", "-machine help", "-help", "-L help"]
    assert find_qemu(str(path), memory=memory) == first
    assert log.read_text() == asked


def test_two_binaries_do_not_share_answers(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    program(tmp_path / "one" / "qemu", ANSWERS)
    program(tmp_path / "two" / "qemu", ANSWERS.replace("9.1.2", "8.0.0"))
    versions = [find_qemu(str(tmp_path / name / "qemu"), memory=memory).version for name in ("one", "two", "one")]
    assert versions == [(9, 1, 2), (8, 0, 0), (9, 1, 2)]


def test_answers_are_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path, memory = counting(tmp_path / "qemu", log), tmp_path / "memory"
    before = find_qemu(str(path), memory=memory)
    identity = before.identity
    # As a package manager does it: another file under the same name.
    counting(tmp_path / "new", log, ANSWERS.replace("9.1.2", "9.2.0")).replace(path)
    after = find_qemu(str(path), memory=memory)
    assert (before.version, after.version) == ((9, 1, 2), (9, 2, 0))
    assert after.identity != identity


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"format": 0}', '{"format": 1, "identity": "x"}'])
def test_a_damaged_memory_is_made_anew(damage: str, tmp_path: Path) -> None:
    path, memory = program(tmp_path / "qemu", ANSWERS), tmp_path / "memory"
    good = find_qemu(str(path), memory=memory)
    (file,) = memory.iterdir()
    content = file.read_text()
    file.write_text(damage)
    assert find_qemu(str(path), memory=memory) == good
    assert file.read_text() == content


def test_nothing_is_remembered_of_a_failure(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    with pytest.raises(QEMUNotFound):
        find_qemu(str(program(tmp_path / "qemu", "exit 1")), memory=memory)
    assert not memory.exists()
