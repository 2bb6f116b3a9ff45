"""Descriptions of images, right and wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import FromFixture, Image, SpecError, VMSpec
from pytest_kvm.spec.vm import from_folder

HASH = "sha256:" + "0" * 64


def test_defaults() -> None:
    image = Image("disk.qcow2")
    assert (image.label, image.user, image.root, image.when_ready) == ("disk.qcow2", "", False, "login")
    assert repr(image) == "Image(disk='disk.qcow2')"
    assert Image(kernel="bzImage", append="quiet").when_ready == "none"


@pytest.mark.parametrize(
    ("fields", "user", "root", "ready"),
    [
        ({"ssh_user": "me"}, "me", False, "ssh"),
        ({"ssh_user": "me", "sudo": True}, "me", True, "ssh"),
        ({"ssh_user": "root", "ssh_key": "key"}, "root", True, "ssh"),
        ({"agent": True}, "root", True, "agent"),
        ({"agent": True, "ssh_user": "me"}, "me", False, "ssh"),
        ({"shell": True, "ssh_user": "me"}, "root", True, "shell"),
        ({"ssh_user": "me", "ready": "login"}, "me", False, "login"),
    ],
)
def test_ways_in(fields: dict[str, Any], user: str, root: bool, ready: str) -> None:
    image = Image("disk", **fields)
    assert (image.user, image.root, image.when_ready) == (user, root, ready)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Image(disk=None, kernel=None): there is nothing to boot; give a disk, or a kernel"),
    ({"disk": "d", "frmat": "raw"}, "Image(frmat=…): unknown keyword 'frmat'; did you mean 'format'?"),
    ({"disk": "d", "format": "row"}, "Image(format='row'): unknown value 'row'; did you mean 'raw'?"),
    ({"disk": 7}, "Image(disk=7): expected a path, got 7 (int)"),
    (
        {"disk": "https://h/d"},
        "Image(disk='https://h/d'): what is fetched must be what was meant; give checksum='sha256:HEX'",
    ),
    ({"disk": "https://h/", "checksum": HASH}, "Image(disk='https://h/'): expected the address of a file, got"),
    (
        {"disk": "d", "checksum": HASH},
        f"Image(checksum='{HASH}'): it is for a disk that is fetched from an http(s) address",
    ),
    (
        {"disk": "https://h/d", "checksum": "sha256:12"},
        "Image(checksum='sha256:12'): sha256 has 64 hexadecimal digits, got 2",
    ),
    ({"disk": "https://h/d", "checksum": "12"}, "Image(checksum='12'): expected a checksum such as 'sha256:HEX' (md5"),
    ({"disk": "d", "append": "quiet"}, "Image(append='quiet'): it is of use with kernel= only"),
    ({"disk": "d", "initrd": "i"}, "Image(initrd='i'): it is of use with kernel= only"),
    ({"kernel": "k", "format": "raw"}, "Image(format='raw'): it is of use with disk= only"),
    ({"disk": "d", "sudo": True}, "Image(sudo=True): it is of use with ssh_user= only"),
    ({"disk": "d", "ready": "ssh"}, "Image(ready='ssh'): nothing else says that there is one; give ssh_user="),
    (
        {"disk": "d", "ready": "booted"},
        "Image(ready='booted'): expected 'shell', 'ssh', 'agent', 'login' or 'none', or",
    ),
    ({"disk": "d", "seed": "cdrom"}, "Image(seed='cdrom'): unknown value 'cdrom'; valid are nocloud or config-drive"),
    ({"disk": "d", "prompt": "("}, "Image(prompt='('): '(' is not a regular expression: "),
    ({"disk": "d", "login": "me you"}, "Image(login='me you'): expected the name of a user, got 'me you'"),
    (
        {"disk": "d", "settled": "true"},
        "Image(settled='true'): there is no way to run it; give ssh_user= or agent=True",
    ),
    ({"disk": "d", "resume": ["true"]}, "Image(resume=('true',)): there is no way to run it; give ssh_user= or agent"),
    ({"disk": "https://[bad/x", "checksum": HASH}, "Image(disk='https://[bad/x'): expected the address of a file"),
    (
        {"disk": "https://h:99999/x", "checksum": HASH},
        "Image(disk='https://h:99999/x'): expected the address of a file",
    ),
    ({"disk": "d", "memory": "much"}, "Image(memory='much'): expected a number of MiB or QEMU's text"),
    ({"disk": "d", "resume": "true"}, "Image(resume='true'): expected a list of commands, got 'true' (str); write"),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=[text for _, text in WRONG])
def test_wrong(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match="^" + re.escape(text)):
        Image(**fields)


def test_paths_start_at_a_folder() -> None:
    image = Image("disk", kernel="/boot/k", initrd="i", append="x", ssh_user="me", ssh_key="key")
    spec = VMSpec(**from_folder({"image": image}, Path("/tests")))  # type: ignore[arg-type]
    assert isinstance(spec.image, Image)
    assert [str(path) for _, path in spec.paths()] == ["/tests/disk", "/boot/k", "/tests/i", "/tests/key"]
    fetched = Image("https://h/d", checksum=HASH)
    assert fetched.below(Path("/tests")) == fetched
    assert list(VMSpec(image=fetched).paths()) == []


def test_a_fixture_may_give_the_disk() -> None:
    image = Image(FromFixture("disk"), checksum=HASH)
    assert list(VMSpec(image=image).paths()) == []


def test_address() -> None:
    assert VMSpec(image=f"https://h/d.img#{HASH.replace(':', '=')}").image
    with pytest.raises(SpecError, match=r"what is fetched must be what was meant; add its checksum: '…#sha256=HEX'"):
        VMSpec(image="https://h/d.img")
    with pytest.raises(SpecError, match="sha256 has 64 hexadecimal digits, got 3"):
        VMSpec(image="https://h/d.img#sha256=123")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"user_data": "echo"}, "vm(user_data='echo'): expected a script ('#!…'), cloud-config ('#cloud-config' or a"),
        ({"user_data": 7}, "vm(user_data=7): expected a script ('#!…'), cloud-config"),
        ({"user_data": {"a": {1, 2}}}, "vm(user_data={'a': {1, 2}}): it cannot be written down: "),
        (
            {"user_data": "#!/bin/sh \ud800"},
            "vm(user_data='#!/bin/sh \\ud800'): it cannot be written as UTF-8: surrogates",
        ),
        ({"user_data": {1: 2}}, "vm(user_data={1: 2}): expected a text as key, got 1 (int)"),
        ({"meta_data": "x"}, "vm(meta_data='x'): expected a mapping such as {'local-hostname': 'web'}, got 'x' (str)"),
        ({"seed": "iso"}, "vm(seed='iso'): unknown value 'iso'; valid are nocloud or config-drive"),
        (
            {"seed": False, "user_data": "#!/bin/sh"},
            "vm(user_data='#!/bin/sh', seed=False): without a seed nobody can tell the guest; leave out one of them",
        ),
        ({"image": None, "seed": True}, "vm(image=None, seed=True): a seed is for a guest that looks for one; give an"),
    ],
)
def test_wrong_seed(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match="^" + re.escape(text)):
        VMSpec(**fields)


def test_user_data_in_a_file_starts_at_the_folder() -> None:
    fields = from_folder({"user_data": Path("init.sh")}, Path("/tests"))
    assert fields == {"user_data": Path("/tests/init.sh")}
    assert from_folder({"user_data": "#!/bin/sh"}, Path("/tests")) == {"user_data": "#!/bin/sh"}
    assert list(VMSpec(**fields).paths()) == [("user_data", Path("/tests/init.sh"))]  # type: ignore[arg-type]
