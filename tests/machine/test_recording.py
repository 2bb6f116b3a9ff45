"""What is said to QEMU and run in a guest is written down as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import VM, CommandTimeout, QMPError, SpecError, VMFactory
from pytest_kvm.errors import ConsoleTimeout, MachineError
from pytest_kvm.waiting import Deadline


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_commands_by_every_way(vm: VM) -> None:
    assert vm.journal is not None
    assert vm.journal.count == 0
    vm.run(["echo", "a b"])
    vm.run("exit 3", check=False, env={"SECRET": "hidden"}, input="also hidden")
    with pytest.raises(CommandTimeout):
        vm.run("sleep 100", timeout=0.1)
    vm.ssh.run("id -u")
    vm.console.login()
    vm.console.run("false")
    with pytest.raises(ConsoleTimeout):
        vm.console.run("sleep 100", timeout=0.1)
    found = lines(vm.journal.path)
    assert [(each["command"], each["via"], each["outcome"], each["status"]) for each in found] == [
        ("echo 'a b'", "shell, as root", "ended", 0),
        ("exit 3", "shell, as root", "ended", 3),
        ("sleep 100", "shell, as root", "timeout", None),
        ("id -u", "SSH, as root", "ended", 0),
        ("false", "console", "ended", 1),
        ("sleep 100", "console", "timeout", None),
    ]
    assert all(each["seconds"] > 0 for each in found)
    assert "hidden" not in vm.journal.path.read_text()


def test_commands_that_are_lost_and_that_never_ran(vm: VM) -> None:
    assert vm.journal is not None
    vm.popen("sleep 1000")
    assert vm.popen("exit 4").wait(timeout=30) == 4
    vm.kill()
    with pytest.raises(MachineError, match="is off"):
        vm.run("true")
    found = [(each["command"], each["outcome"], each.get("status"), each.get("error")) for each in vm.journal.last()]
    assert sorted(found[:3]) == [
        ("exit 4", "ended", 4, None),
        ("exit 4", "started", None, None),
        ("sleep 1000", "started", None, None),
    ]
    assert found[3:] == [
        ("sleep 1000", "lost", None, "the machine went off"),
        ("true", "lost", None, "VM 'vm' is off; vm.start() switches it on"),
    ]


def test_what_has_no_way_is_no_command(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None)
    with pytest.raises(SpecError, match="offers neither"):
        vm.run("true")
    assert vm.journal is not None
    assert vm.journal.count == 0


def test_qmp_commands_answers_and_events(vm_factory: VMFactory) -> None:
    vm = vm_factory(image=None, devices=["VGA"])
    vm.qmp.execute("query-name")
    with pytest.raises(QMPError):
        vm.qmp.execute("eject", {"device": "none such"})
    vm.qmp.execute("object-add", {"qom-type": "secret", "id": "s", "data": "hidden"})
    with pytest.raises(QMPError):
        vm.qmp.execute("set_password", {"protocol": "vnc", "password": "hidden"})
    vm.pause()
    assert vm.watch.wait_only(lambda: any(event["event"] == "STOP" for event in vm.qmp.events), Deadline(10))
    text = vm.qmp_journal.path.read_text()
    assert "hidden" not in text
    found = lines(vm.qmp_journal.path)
    asked = next(each for each in found if each.get("execute") == "query-name")
    assert [each["return"] for each in found if each.get("id") == asked["id"] and "return" in each] == [{"name": "vm"}]
    refused = next(each for each in found if each.get("execute") == "eject")
    assert refused["arguments"] == {"device": "none such"}
    (error,) = [each["error"] for each in found if each.get("id") == refused["id"] and "error" in each]
    assert error["class"] == "DeviceNotFound"
    stop = next(each for each in found if each.get("event") == "STOP")
    assert stop["time"].startswith("20")
