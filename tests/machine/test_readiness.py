"""When a machine is ready by what its console shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_kvm.errors import BootTimeout, QEMUExited
from pytest_kvm.guest.agent.agent import Agent
from pytest_kvm.guest.console.serial import SerialPort
from pytest_kvm.guest.shell.shell import Shell
from pytest_kvm.guest.ssh.ssh import SSH
from pytest_kvm.machine.readiness import wait_ready
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.waiting import Deadline, Watch
from tests.guest.console.terminals import KERNEL, SYSTEMD, line


@dataclass
class Machine:
    serial: SerialPort | None
    watch: Watch
    name: str = "vm"
    accel: str = "tcg"
    shell: Shell | None = None
    elastic: bool = False

    @property
    def qmp(self) -> QMP:
        raise QEMUExited("it is off")

    @property
    def pid(self) -> int:
        raise NotImplementedError

    @property
    def ssh(self) -> SSH:
        raise NotImplementedError

    @property
    def agent(self) -> Agent:
        raise NotImplementedError


@pytest.mark.parametrize("behind", ["", KERNEL, SYSTEMD, KERNEL + "[   12.3456"])
def test_login_prompt_with_messages_behind_it(tmp_path: Path, behind: str) -> None:
    with line(tmp_path) as console:
        machine = Machine(console.port, console.watch)
        console.print("Last login: ")
        with pytest.raises(BootTimeout, match="waiting for a login prompt on the console"):
            wait_ready(machine, "login", Deadline(0.0))
        console.print(f"\r\n{KERNEL}vm log{KERNEL}in: {behind}")
        if behind.endswith("3456"):
            console.print("78] foo\r\n")
        wait_ready(machine, "login", Deadline(0.0))
        with pytest.raises(BootTimeout):
            wait_ready(machine, "login", Deadline(0.0), since=console.port.received)
