"""The stand-in for CirrOS has CirrOS's manners, on the console and over SSH."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from pytest_kvm import VM, Drive, VMFactory
from tests.guests.tools import MissingTool, run

PASSWORD = "gocubsgo"
BANNER = r"\nlogin as 'cirros' user\. default password: 'gocubsgo'\. use 'sudo' for root\.[\r\n]+{} login: "


def seed(folder: Path, label: str, files: dict[str, str]) -> Path:
    """Make an ISO 9660 image of some files."""
    content = folder / label
    for name, text in files.items():
        path = content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    image = folder / f"{label}.iso"
    try:
        run("genisoimage", "genisoimage", "-quiet", "-V", label, "-J", "-r", "-o", image, content)
    except MissingTool as error:
        pytest.fail(f"{error} (tox installs it)")
    return image


def public(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def connect(vm: VM, *, password: str | None = None, key: paramiko.PKey | None = None) -> paramiko.SSHClient:
    host, port = vm.forward(22)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        host, port, "cirros", password=password, pkey=key, allow_agent=False, look_for_keys=False, banner_timeout=30
    )
    return client


@pytest.fixture(scope="module")
def keys() -> list[paramiko.PKey]:
    return [paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()]


@pytest.fixture(scope="module")
def seeded(
    cirros_disk: Path,
    keys: list[paramiko.PKey],
    vm_session_factory: VMFactory,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VM]:
    """The stand-in with a NoCloud seed on a virtio disk."""
    meta_data = {
        "instance-id": "first",
        "local-hostname": "seeded.example.org",
        # In a list, CirrOS puts one key behind the other as they are.
        "public-keys": [f"{public(key)}\n" for key in keys],
        "more": {"left": {"out": [1, True, None, 'a "quoted" \\ word']}},
    }
    files = {"meta-data": json.dumps(meta_data), "user-data": "#!/bin/sh\necho user data as $(id -un)\n"}
    image = seed(tmp_path_factory.mktemp("seed"), "cidata", files)
    vm = vm_session_factory("seeded", image=cirros_disk, drives=[Drive(image, readonly=True)])
    yield vm
    vm.power_cut()


def test_console(seeded: VM) -> None:
    console = seeded.console
    console.expect(r"user data as root\r\n")
    console.expect(BANNER.format("seeded"))
    console.sendline("cirros")
    console.expect("\r\nPassword: ")
    console.sendline("wrong")
    console.expect("\r\nLogin incorrect\r\n")
    console.expect("\r\nseeded login: ")
    console.sendline("cirros")
    console.expect("\r\nPassword: ")
    console.sendline(PASSWORD)
    console.expect(r"\r\n\$ $")
    console.sendline("id -u")
    console.expect(r"id -u\r\n1000\r\n\$ $")
    assert console.run("pwd; sudo id -u; sudo -n id -u; sudo sh -c 'echo \"$0 $1\"' one 'two three'").stdout == (
        "/home/cirros\n0\n0\none two three\n"
    )
    assert console.run("sudo nonesuch").returncode == 1
    assert console.run("head -c 8000000 /dev/zero >zeros && stat -c %s zeros").stdout == "8000000\n"


def test_ssh_with_password(seeded: VM) -> None:
    with connect(seeded, password=PASSWORD) as client:
        transport = client.get_transport()
        assert transport is not None
        assert transport.host_key_type == "ecdsa-sha2-nistp256"
        _, stdout, _ = client.exec_command("id -un; sudo -n id -un; hostname")
        assert stdout.read() == b"cirros\nroot\nseeded\n"
    with pytest.raises(paramiko.AuthenticationException):
        connect(seeded, password="wrong")


def test_ssh_with_key(seeded: VM, keys: list[paramiko.PKey]) -> None:
    for key in keys:
        connect(seeded, key=key).close()
    with pytest.raises(paramiko.AuthenticationException):
        connect(seeded, key=paramiko.ECDSAKey.generate())


def test_no_sftp(seeded: VM) -> None:
    with connect(seeded, password=PASSWORD) as client, pytest.raises(paramiko.SSHException):
        client.open_sftp()


def test_config_drive_and_power(
    cirros_disk: Path, keys: list[paramiko.PKey], vm_factory: VMFactory, tmp_path: Path
) -> None:
    meta_data = {"uuid": "second", "hostname": "driven", "public_keys": {"mine": f"{public(keys[0])}\n"}}
    files = {
        "openstack/latest/meta_data.json": json.dumps(meta_data),
        "openstack/latest/user_data": "#!/bin/sh\necho user data as $(id -un)\n",
    }
    image = seed(tmp_path, "config-2", files)
    vm = vm_factory(image=cirros_disk, machine="pc", memory="128M", cdrom=image)
    vm.console.expect(r"user data as root\r\n")
    vm.console.expect(BANNER.format("driven"))
    connect(vm, key=keys[0]).close()
    vm.console.login("cirros", PASSWORD)
    with vm.qmp.expect_event("RESET", timeout=30):
        vm.console.sendline("sudo reboot")
    vm.console.expect(BANNER.format("driven"), timeout=90)
    vm.shutdown()  # with the power button


def test_meta_data_has_to_be_json(cirros_disk: Path, vm_factory: VMFactory, tmp_path: Path) -> None:
    image = seed(tmp_path, "cidata", {"meta-data": "instance-id: third\nlocal-hostname: plain\n", "user-data": ""})
    vm = vm_factory(
        image=cirros_disk, drives=[Drive(image)], ready=re.compile(r"failed 1/20: up [\d.]+\. request failed")
    )
    vm.console.expect(r"checking http://169\.254\.169\.254/2009-04-04/instance-id\r\n")
    assert "failed on meta-data" in str(vm.console.before)
    with pytest.raises((paramiko.SSHException, OSError, EOFError)):
        connect(vm, password=PASSWORD)  # nothing listens yet


@pytest.mark.slow
def test_without_a_seed(cirros_disk: Path, vm_factory: VMFactory) -> None:
    vm = vm_factory(image=cirros_disk, timeout=200)
    vm.console.expect(BANNER.format("cirros"))
    said = str(vm.console.before)
    assert re.findall(r"failed (\d+)/20: up [\d.]+\. request failed\r\n", said) == [str(n) for n in range(1, 21)]
    for _ in range(2):
        with pytest.raises(EOFError):
            connect(vm, password=PASSWORD)
