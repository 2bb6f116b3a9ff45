"""What a machine is made of, as JSON and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_kvm import Drive, Nic, NumaNode, SpecError, VMSpec
from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.machine.plain import from_plain, to_plain
from pytest_kvm.qemu.plan import Channel, DriveFile, Plan, PlannedDrive, PlannedFirmware, PlannedNic, Ram
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.image import Image

SPEC = VMSpec(
    image=Image(Path("/a/disk.qcow2"), login="user", ready=re.compile("ready", re.IGNORECASE), devices=["VGA"]),
    drives=[Drive("/a/given.raw", readonly=True), Drive(size=4096, properties={"logical": True})],
    nics=[Nic(mac="52:54:00:00:00:01")],
    user_data={"$": {"deep": [1, 2.5, None, True]}},
    ready=re.compile("x"),
    fw_cfg={"opt/org.example/a": b"\0\xff", "opt/org.example/b": Path("/a/b")},
    smbios={1: {"serial": "S"}, 8: [{"port_type": 3}]},
    numa=[NumaNode(memory=64, cpus="0,2", distances=[10, 20]), NumaNode(memory="64M", cpus=1, distances=[20, 10])],
    smp=3,
    args=["-boot", "order=c"],
)
PLAN = Plan(
    spec=SPEC,
    accel="tcg",
    qmp=Channel("qmp", -1, connected=False),
    kernel=Path("/a/kernel"),
    drives=[(PlannedDrive("disk0", SPEC.drives[0], 0, "rootport0"), DriveFile(Path("/b"), "qcow2"))],
    nics=[PlannedNic("net0", Nic(), "52:54:00:00:00:02", [parse_hostfwd(80)])],
    ram=Ram(),
    firmware=PlannedFirmware(code=Path("/a/code"), template=Path("/a/vars"), smm=True),
)


def there_and_back(value: object) -> object:
    return from_plain(json.loads(json.dumps(to_plain(value))))


@pytest.mark.parametrize("value", [SPEC, SavedLane(1, "epoch", 3, "end", 0, out=True), None, [Path("a"), "a"]])
def test_there_and_back(value: object) -> None:
    assert there_and_back(value) == value


def test_a_whole_plan() -> None:
    made = there_and_back(PLAN)
    assert isinstance(made, Plan)
    assert made.spec == SPEC
    assert (made.nics, made.kernel, made.ram, made.agent) == (PLAN.nics, PLAN.kernel, Ram(), None)
    assert made.firmware == PLAN.firmware
    # JSON knows no tuples.
    assert [tuple(pair) for pair in made.drives] == PLAN.drives


def test_what_cannot_be_written_down() -> None:
    with pytest.raises(TypeError, match="cannot be written down"):
        to_plain({1, 2})
    with pytest.raises(TypeError, match="cannot be written down"):
        to_plain([{"key": object()}])


@pytest.mark.parametrize(
    ("plain", "error"),
    [
        ({"$": "Popen", "args": ["true"]}, KeyError),
        ({"args": []}, KeyError),
        ({"$": "Drive", "file": "a", "colour": "red"}, SpecError),
        ({"$": "VMSpec", "smp": "two"}, SpecError),
        ({"$": "PlannedNic", "id": "net0"}, TypeError),
        ({"$": "pattern", "text": "(", "flags": 0}, ValueError),
    ],
)
def test_what_is_not_taken(plain: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_plain(plain)
