"""What the tests of the guest's channels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_kvm.guest.ssh import connection
from pytest_kvm.guest.ssh import ssh as ssh_module
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.waiting import Watch
from tests.guest.ssh.sshd import Daemon, make_key, ssh_to

Start = Callable[..., Daemon]
Connect = Callable[..., SSH]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with keys of each kind, all of which are let in."""
    folder = tmp_path_factory.mktemp("keys")
    for kind in ("ed25519", "ecdsa", "rsa"):
        make_key(folder / f"host_{kind}", kind)
        make_key(folder / f"client_{kind}", kind)
    public = [path.read_text() for path in folder.glob("client_*.pub")]
    (folder / "authorized_keys").write_text("".join(public))
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be closed after the test."""
    with ExitStack() as everything:
        yield everything


@pytest.fixture
def watch() -> Watch:
    """The news about a machine that runs."""
    return Watch()


@pytest.fixture
def sshd(keys: Path, tmp_path: Path, stack: ExitStack) -> Start:
    """Start an SSH server: ``sshd("Port 22", …, host_key="rsa")``."""

    def start(*config: str, host_key: str = "ed25519") -> Daemon:
        daemon = Daemon(tmp_path / "sshd", keys, *config, host_key=host_key)
        stack.callback(daemon.close)
        return daemon

    return start


@pytest.fixture
def connect(stack: ExitStack, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return what ``vm.ssh`` would be, for a server: ``connect(daemon, password="…")``."""
    monkeypatch.setattr(ssh_module, "_NEWS_PATIENCE", 0.02)  # there is no machine to have any

    def make(server: Daemon, **changes: object) -> SSH:
        return stack.enter_context(ssh_to(server, server.image, watch, **changes))

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without a pause."""
    monkeypatch.setattr(connection, "_PAUSES", (0.01,))
    monkeypatch.setattr(connection, "_PAUSE", 0.01)


@pytest.fixture
def server(sshd: Start) -> Daemon:
    return sshd()


@pytest.fixture
def ssh(server: Daemon, connect: Connect) -> SSH:
    return connect(server)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Our side."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The guest's side, which is the same machine in these tests."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder
