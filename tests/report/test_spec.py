"""A spec as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm.report.spec import spec_json
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.vm import VMSpec


def read(spec: VMSpec) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(spec_json(spec))
    return made


def test_every_field_is_in_it() -> None:
    made = read(VMSpec())
    assert list(made) == [field.name for field in fields(VMSpec)]
    assert (made["name"], made["image"], made["smp"], made["drives"]) == ("vm", "tiny", 1, [])


def test_what_is_no_json() -> None:
    spec = VMSpec(
        kernel=Path("/k"),
        ready=re.compile("up!"),
        drives=[Drive(Path("/d"), serial="s")],
        nics=[Nic(properties={"mq": True})],
    )
    made = read(spec)
    assert (made["kernel"], made["ready"]) == ("/k", "re.compile('up!')")
    assert (made["drives"][0]["file"], made["drives"][0]["serial"]) == ("/d", "s")
    assert made["nics"][0]["properties"] == {"mq": True}


@pytest.mark.parametrize(
    "spec",
    [
        VMSpec(image=Image("/d", login="me", password="hush", ssh_user="me", ssh_key="/key")),
        VMSpec(image="https://me:hush@example.org/d.qcow2#sha256=" + "0" * 64),
        VMSpec(user_data="#!/bin/sh\necho root:hush | chpasswd\n"),
        VMSpec(user_data={"users": [{"plain_text_passwd": "hush"}], "runcmd": ["echo hush"]}),
        VMSpec(meta_data={"admin_pass": "x", "adminPassword": "hush", "deep": [{"api_token": "hush"}]}),
    ],
)
def test_what_is_secret(spec: VMSpec) -> None:
    assert "hush" not in spec_json(spec)
    assert "(not kept)" in spec_json(spec)


def test_what_is_not_secret() -> None:
    spec = VMSpec(image=Image("/d", ssh_user="me", ssh_key="/key"), user_data=Path("/u"), meta_data={"a": 1})
    made = read(spec)
    assert (made["image"]["ssh_key"], made["user_data"], made["meta_data"]) == ("/key", "/u", {"a": 1})
    assert made["image"]["password"] is None
