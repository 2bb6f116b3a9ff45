"""No value becomes an option: what QEMU would read on the command line is what was said."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm import Drive, Nic, SpecError, VMSpec
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.qemu.plan import DriveFile, plan_drives
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.boot import parse_boot
from pytest_kvm.spec.drive import CACHES, INTERFACES
from pytest_kvm.spec.smp import parse_smp
from tests.hostile import FILE_NAMES, TEXTS
from tests.qemu.fakes import binary
from tests.qemu.options import node as read_node
from tests.qemu.options import of, read
from tests.qemu.plans import plan

NAMES = st.sampled_from(FILE_NAMES) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=9
)
# Values that are no text are written as QEMU has them.
VALUES = st.one_of(NAMES, st.booleans(), st.integers(), st.floats())
KEYS = st.sampled_from(["x-prop", "logical_block_size", "ports[0]", "bus", "addr"])


def said(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4), NAMES)
def test_option_texts(settings_: dict[str, object], first: str) -> None:
    text = option(first.replace(",", ",,"), settings_)
    if "=" not in first:
        assert read(text, "first") == [("first", first), *((key, said(value)) for key, value in settings_.items())]


FIELDS = st.fixed_dictionaries(
    {
        "interface": st.sampled_from(INTERFACES),
        "cache": st.sampled_from([None, *CACHES]),
        "serial": st.none() | st.text(max_size=20),
        "properties": st.dictionaries(KEYS, VALUES, max_size=2),
    }
)


@settings(max_examples=200)
@given(NAMES, FIELDS, st.booleans())
def test_drives(name: str, fields: dict[str, Any], read_only: bool) -> None:
    file, properties, serial = Path("/disks") / name, fields["properties"], fields["serial"]
    try:
        spec = VMSpec(drives=[Drive(file, **fields)])
    except SpecError:
        return
    (planned,) = plan_drives(spec)
    command = build(plan(spec, drives=[(planned, DriveFile(file, "raw", read_only))]), binary())
    (blockdev,) = of(command, "-blockdev")
    node_ = read_node(blockdev)
    assert node_["file.filename"] == str(file)
    assert (node_["driver"], node_["node-name"], node_["read-only"]) == ("raw", "disk0", said(read_only))
    assert set(node_) <= {"file.filename", "driver", "node-name", "read-only", "file.driver"} | {
        f"{prefix}cache.{key}" for prefix in ("", "file.") for key in ("direct", "no-flush")
    }
    device = dict(read(of(command, "-device")[-1], "driver"))
    assert device["drive"] == device["id"] == "disk0"
    for key, value in properties.items():
        assert device[key] == said(value)
    if serial is not None:
        assert device["serial"] == serial
    assert set(device) <= {
        "driver",
        "id",
        "drive",
        "serial",
        "bus",
        "unit",
        "scsi-id",
        "port",
        "write-cache",
        *properties,
    }


@given(NAMES, NAMES, TEXTS, TEXTS, TEXTS)
def test_what_is_booted(kernel: str, initrd: str, append: str, boot: str, smp: str) -> None:
    with contextlib.suppress(SpecError):
        spec = VMSpec(append=append, boot=boot, smp=smp)
        planned = plan(spec, kernel=Path("/k") / kernel, initrd=Path("/k") / initrd, append=append)
        command = build(planned, binary())
        assert of(command, "-kernel") == [f"/k/{kernel}"]
        assert of(command, "-initrd") == [f"/k/{initrd}"]
        assert of(command, "-append") == ([append] if append else [])
        assert parse_boot(of(command, "-boot")[0]) == parse_boot(boot)
        assert parse_smp(of(command, "-smp")[0]) == parse_smp(smp)
        assert all(value.strip() == value for _, value in read(of(command, "-smp")[0], "cpus"))


@given(st.dictionaries(KEYS, VALUES, max_size=3), st.sampled_from([22, "udp::-:53", "tcp:127.0.0.1:8022-10.0.2.15:22"]))
def test_nics(properties: dict[str, object], forward: int | str) -> None:
    spec = VMSpec(nics=[Nic(properties=properties)], hostfwd=[forward])
    command = build(plan(spec), binary())
    (netdev,) = of(command, "-netdev")
    keys = [key for key, _ in read(netdev, "type")]
    assert keys == ["type", "id", "restrict", "hostfwd"]
    device = dict(read(of(command, "-device")[-1], "driver"))
    assert {key: device[key] for key in properties} == {key: said(value) for key, value in properties.items()}


@given(st.lists(TEXTS, max_size=4))
def test_arguments_come_last_as_they_are(args: list[str]) -> None:
    with contextlib.suppress(SpecError):
        spec = VMSpec(args=args)
        command = build(plan(spec), binary())
        assert command[len(command) - len(args) :] == args


@pytest.mark.parametrize("cache", [None, "none", "unsafe"])
def test_both_ways_of_a_node_say_the_same(cache: str | None) -> None:
    """JSON cannot have every name; what is said besides the name is the same."""
    nodes = []
    for name in ("plain", "\udcff"):
        (planned,) = plan_drives(VMSpec(drives=[Drive(name, cache=cache)]))
        drives = [(planned, DriveFile(Path(name), "qcow2"))]
        (text,) = of(build(plan(VMSpec(), drives=drives), binary()), "-blockdev")
        assert text.startswith("{") is (name == "plain")
        nodes.append(read_node(text))
        assert nodes[-1].pop("file.filename") == name
    assert nodes[0] == nodes[1]
