"""The images in the cache, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from pytest_kvm.cli import main
from pytest_kvm.images.builtin import tiny
from tests.images.disks import make_qcow2
from tests.images.fetching.servers import Server, file, serving

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server
) -> Command:
    """Runs ``pytest-kvm images`` in a project that describes the image ``mine``, with an empty cache."""
    disk = make_qcow2(tmp_path / "disk").read_bytes()
    url = server.at("/mine.img", file(disk))
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.pytest-kvm.images.mine]\ndisk = "{url}"\nchecksum = "sha256:{sha256(disk).hexdigest()}"\n'
        'ssh_user = "me"\npassword = "secret"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["images", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def stored(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "downloads").glob("*/mine.img")
    return path


def test_nothing_is_here(command: Command, tmp_path: Path) -> None:
    assert command("list") == (0, f"0 in {tmp_path}/cache, 0 MiB\n", "")
    status, out, _ = command("list", "--all")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert {"mine", "tiny", "cirros", "cirros:0.3.4", "debian:13", "opensuse-leap:16.0"} <= set(names)


def test_pull_and_what_follows(command: Command, tmp_path: Path, server: Server) -> None:
    status, out, err = command("pull", "mine")
    name = stored(tmp_path).parent.name
    assert (status, out) == (0, f"{name}: fetched: {stored(tmp_path)}\n")
    assert err.startswith(f"downloading {server.url('/mine.img')} (")
    assert command("pull", "mine")[1] == f"{name}: is the newest already: {stored(tmp_path)}\n"
    assert command("path", "mine") == (0, f"{stored(tmp_path)}\n", "")
    assert command("verify", "mine") == (0, f"{name}: good\n", "")
    assert command("verify", "--all") == (0, f"{name}: good\n", "")
    status, out, _ = command("list")
    assert out.splitlines()[1].split()[:2] == [name, "8"]
    facts = json.loads(command("list", "--json")[1])
    assert [(each["kind"], each["name"], each["path"]) for each in facts] == [("fetched", name, str(stored(tmp_path)))]
    status, out, _ = command("remove", "mine")
    assert (status, out) == (0, "8 MiB removed\n")
    assert not list((tmp_path / "cache" / "downloads").glob("*/mine.img"))
    assert command("path", "mine")[0] == 1


def test_damage_is_seen(command: Command, tmp_path: Path) -> None:
    command("pull", "mine")
    content = bytearray(stored(tmp_path).read_bytes())
    content[-1] ^= 1
    stored(tmp_path).write_bytes(content)
    for verb in (["verify", "mine"], ["list"]):
        status, out, err = command(*verb)
        assert status == 1
        assert "was changed or damaged since it was fetched" in out + err
    name = stored(tmp_path).parent.name
    assert f"'pytest-kvm images pull {name}' fetches it again" in command("verify", "mine")[2]
    assert command("pull", name)[0] == 0
    assert command("verify", "mine")[0] == 0


def test_a_wrong_disk_is_told_when_it_is_pulled(command: Command, tmp_path: Path, server: Server) -> None:
    page = b"<html>not found</html>"
    url = server.at("/mine.img", file(page))
    address = f"{url}#sha256={sha256(page).hexdigest()}"
    status, _, err = command("pull", address)
    assert status == 1
    assert "it is a web page, as servers send in place of a file that they do not have" in err


@pytest.mark.parametrize("name", ["debian:13", "cirros", "mine"])
def test_info(command: Command, name: str) -> None:
    status, out, _ = command("info", name, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["urls"]
    assert facts["checksum"]
    assert facts["cached"] is None
    assert facts["image"]["ssh_user"]
    status, out, _ = command("info", name)
    assert f"  password: {facts['image']['password']}\n" in out


WRONG = [
    (["info", "debain:13"], "did you mean 'debian:13'?"),
    (["pull", "debian:7"], "image 'debian:7': no version '7' for x86_64 is known; there are debian:13, debian:12 or"),
    (["pull", "./disk"], "image './disk' is not fetched from anywhere"),
    (
        ["pull", "https://h/d.img"],
        "vm(image='https://h/d.img'): what is fetched must be what was meant; add its checksum",
    ),
    (["build", "cirros"], "images build: 'cirros' is not built here; pull it"),
    (["verify", "tiny"], "image 'tiny' is built here, not fetched; 'pytest-kvm images build --refresh' makes it anew"),
    (["path", "cirrus"], "did you mean 'cirros'?"),
    (["remove", "cirrus"], "did you mean 'cirros'?"),
    (["verify"], "images verify: give names, or --all"),
    (["remove"], "images remove: give names, --superseded, or --all"),
    (["remove", "mine"], "image 'mine' is not in the cache"),
    (["remove", "tiny"], "image 'tiny' is not in the cache"),
    (["path", "tiny"], "'pytest-kvm images build tiny' makes it"),
    (["path", "cirros"], "'pytest-kvm images pull cirros' fetches it"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong(command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert text in err


def built(folder: Path, name: str, suite: str) -> Path:
    guest = folder / "cache" / "images" / name
    guest.mkdir(parents=True)
    (guest / "info.json").write_text(json.dumps({"suite": suite, "kernel_release": "6.1"}))
    (guest / "vmlinuz").write_bytes(bytes(3 << 20))
    return guest


def test_built_guests(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (built(tmp_path, f"tiny-trixie-{number}", "trixie") for number in (1, 2))
    monkeypatch.setattr("pytest_kvm.images.builtin.built.cached_directory", lambda *_: new)
    lines = [line.split() for line in command("list")[1].splitlines()]
    assert [line[0] for line in lines[1:3]] == ["tiny:trixie", "tiny:trixie"]
    assert [line[-1] for line in lines[1:3]] == ["s", "superseded"]
    assert command("path", "tiny:trixie") == (0, f"{new}\n", "")
    assert f"path: {new}\n" in command("info", "tiny:trixie")[1]
    assert command("remove", "--superseded") == (0, "3 MiB removed\n", "")
    assert not old.exists()
    assert command("remove", "tiny:trixie") == (0, "3 MiB removed\n", "")
    assert not new.exists()


def test_the_real_built_in_guest(capsys: pytest.CaptureFixture[str]) -> None:
    image = tiny.tiny_image()
    assert image.kernel is not None
    assert main(["images", "build"]) == 0
    assert capsys.readouterr().out == f"{image.name}: {Path(image.kernel).parent}\n"
    assert main(["images", "path", "tiny"]) == 0
    assert capsys.readouterr().out == f"{Path(image.kernel).parent}\n"


def test_ctrl_c(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_kvm.cli.images._list", interrupt)
    assert main(["images", "list"]) == 130
    assert capsys.readouterr().err == "pytest-kvm: interrupted\n"
