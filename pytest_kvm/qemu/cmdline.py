"""QEMU's command line: a pure function of the plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pytest_kvm.qemu.binary import QEMUBinary
from pytest_kvm.qemu.blocks import drive_arguments, is_adapter
from pytest_kvm.qemu.board import board_arguments
from pytest_kvm.qemu.built import with_properties, without
from pytest_kvm.qemu.devices import driver_of, parts
from pytest_kvm.qemu.flash import firmware_arguments, machine_properties
from pytest_kvm.qemu.memory import machine_settings, memory_arguments
from pytest_kvm.qemu.nics import nic_arguments
from pytest_kvm.qemu.plan import DEFAULT_MACHINE, Channel, Plan, machine_kind, plan_devices, plan_shares
from pytest_kvm.qemu.text import option
from pytest_kvm.spec.boot import parse_boot
from pytest_kvm.spec.numa import processors

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
SHELL_BUS = "shell0"
# A bus of its own: the shell may need every port of its bus, and plugs them in an order that clones have to repeat.
AGENT_BUS = "agent0"
AGENT_PORT = "org.qemu.guest_agent.0"
ROOT_PORTS = 4
NINEP = "virtio-9p-pci"
# hw/i386: what q35, pc and microvm have when nothing is said.
_MODEL = "qemu64"
# Lanes of the guest's shell are plugged in while it runs; QEMU's virtio-serial has 31 ports at most.
MAX_PORTS = 31


def build(plan: Plan, binary: QEMUBinary) -> list[str]:
    """Return the command, the binary first. ``args`` of the spec come last, as they are."""
    pinned = {name: {"addr": address} for name, address in plan.addresses.items()}
    arguments = with_properties(without(_arguments(plan, binary), plan.unplugged), pinned)
    arguments = with_properties(arguments, plan.spec.properties)
    return [str(binary.path), *arguments, *plan.spec.args]


def is_built(command: Sequence[str]) -> bool:
    """Return whether a command line, of QEMU or of a script that wraps it, is one that ``build`` makes."""
    pairs = list(pairwise(command))
    named = any(key == "-name" and value.startswith("guest=") for key, value in pairs)
    return named and ("-mon", "chardev=qmp,mode=control") in pairs


def _arguments(plan: Plan, binary: QEMUBinary) -> Iterator[str]:
    spec = plan.spec
    kind = machine_kind(spec.machine)
    yield from ("-name", option(f"guest={spec.name.replace(',', ',,')}"))
    yield from ("-nodefaults", "-no-user-config")
    if binary.sandbox:
        yield from ("-sandbox", SANDBOX)
    yield from ("-machine", _machine(plan))
    yield from ("-accel", plan.accel)
    yield from ("-display", "none")
    yield from _monitor(plan)
    yield from _beside(plan)
    if plan.incoming:
        yield from ("-S", "-incoming", "defer")
    if kind == "none":
        return
    yield from _cpu(plan, binary)
    yield from ("-smp", str(processors(spec.smp, spec.numa)))
    yield from memory_arguments(plan)
    if binary.version >= (6, 0):
        # The guest's panic leaves the machine to be looked at, instead of rebooting it away.
        yield from ("-action", "panic=pause")
    if plan.console is not None:
        yield from _console(plan.console)
    if plan.seabios is not None and "isa-debugcon" in binary.devices:
        # SeaBIOS, src/output.c: its messages go to this port, too, when QEMU has something there.
        yield from _chardev(plan.seabios)
        yield from ("-device", option("isa-debugcon", {"iobase": 0x402, "chardev": plan.seabios.id}))
    if plan.firmware is not None:
        yield from firmware_arguments(plan.firmware)
    yield from board_arguments(plan)
    yield from _boot(plan)
    yield from _extras(plan, kind, binary)
    yield from _ports(plan, kind)
    yield from _agent(plan, kind)
    for nic in plan.nics:
        yield from nic_arguments(nic, plan, kind)
    yield from drive_arguments(plan)
    yield from _shares(plan, binary)
    for device in _devices(plan, kind):
        yield from device


def _machine(plan: Plan) -> str:
    first = (plan.spec.machine or DEFAULT_MACHINE) + machine_settings(plan)
    return ",".join([first, *(machine_properties(plan.firmware) if plan.firmware is not None else ())])


def _cpu(plan: Plan, binary: QEMUBinary) -> Iterator[str]:
    model = plan.spec.cpu
    if model is None and plan.accel.partition(",")[0] in ("kvm", "hvf"):
        model = "host"
    if model is None and _has_unsound_cx16(plan, binary):
        model = f"{_MODEL},-cx16"
    if model is not None:
        yield from ("-cpu", model)


def _has_unsound_cx16(plan: Plan, binary: QEMUBinary) -> bool:
    """Return whether QEMU's own choice of CPU is the model whose CMPXCHG16B this QEMU emulates wrongly.

    Before 8.0 (target/i386/tcg/translate.c) that instruction may leave anything in EFLAGS. An interrupt that comes
    then keeps it: the direction flag turned round, or the trap flag, in the middle of Linux, whose allocator (SLUB)
    uses the instruction all the time. Without it, Linux takes another way.
    """
    emulated = plan.accel.startswith("tcg") and binary.version < (8, 0)
    return emulated and machine_kind(plan.spec.machine) != "other" and f"{_MODEL}-x86_64-cpu" in binary.devices


def _devices(plan: Plan, kind: str) -> Iterator[tuple[str, str]]:
    """The declared devices, in order, and those that were plugged in; without what the drives hang on."""
    planned = iter(plan_devices(plan.spec))
    for device in plan.spec.devices:
        if isinstance(device, str):
            yield "-device", device
            continue
        typed = next(planned)
        if not is_adapter(typed):
            yield from (part.arguments for part in parts(typed, kind))
    for plugged in plan.plugged:
        if not is_adapter(plugged):
            yield from (part.arguments for part in parts(plugged, kind))


def _chardev(channel: Channel) -> Iterator[str]:
    yield "-chardev"
    if channel.fd is None:
        # Not null: with that, the guest is told that nobody is connected, which it is not in the test.
        yield option("ringbuf", {"id": channel.id})
    else:
        yield option("socket", {"id": channel.id, "fd": channel.fd, "server": True, "wait": channel.connected})


def _monitor(plan: Plan) -> Iterator[str]:
    if plan.qmp.fd is not None:
        yield from _chardev(plan.qmp)
        yield from ("-mon", f"chardev={plan.qmp.id},mode=control")
    elif plan.console is None:
        yield from ("-monitor", "stdio")


def _beside(plan: Plan) -> Iterator[str]:
    """What is for somebody beside us, who may let the machine begin."""
    if plan.monitor is not None:
        yield from _chardev(plan.monitor)
        yield from ("-mon", f"chardev={plan.monitor.id},mode=control")
    if plan.gdb is not None:
        yield from _chardev(plan.gdb)
        yield from ("-gdb", f"chardev:{plan.gdb.id}")
    if plan.halted:
        yield "-S"


def _console(channel: Channel) -> Iterator[str]:
    if channel.fd is None:
        yield from ("-serial", "mon:stdio")
    else:
        yield from _chardev(channel)
        yield from ("-serial", f"chardev:{channel.id}")


def _boot(plan: Plan) -> Iterator[str]:
    if plan.kernel is not None:
        yield from ("-kernel", os.fspath(plan.kernel))
        if plan.initrd is not None:
            yield from ("-initrd", os.fspath(plan.initrd))
        if plan.append:
            yield from ("-append", plan.append)
    if plan.spec.boot is not None:
        yield from ("-boot", str(parse_boot(plan.spec.boot)))


def _extras(plan: Plan, kind: str, binary: QEMUBinary) -> Iterator[str]:
    """What every machine with an image gets; a device of the same kind that the test declares takes its place."""
    declared = [driver_of(device, kind) for device in plan.spec.devices]
    mmio = kind == "microvm"

    def wanted(extra: str, driver: str) -> bool:
        taken = any(name.startswith(driver.removesuffix("-pci").removesuffix("-device")) for name in declared)
        return extra in plan.extras and not taken and driver in binary.devices

    if kind == "q35" and wanted("rootports", "pcie-root-port"):
        for number in range(ROOT_PORTS):
            yield from (
                "-device",
                option("pcie-root-port", {"id": f"rootport{number}", "chassis": number + 1, "slot": number + 1}),
            )
    balloon = "virtio-balloon-device" if mmio else "virtio-balloon-pci"
    if wanted("balloon", balloon):
        yield from ("-device", option(balloon, {"id": "balloon0"}))
    rng = "virtio-rng-device" if mmio else "virtio-rng-pci"
    if wanted("rng", rng):
        yield from ("-object", option("rng-random", {"id": "rng0-source", "filename": "/dev/urandom"}))
        yield from ("-device", option(rng, {"id": "rng0", "rng": "rng0-source"}))
    if not mmio and wanted("pvpanic", "pvpanic-pci"):
        yield from ("-device", option("pvpanic-pci", {"id": "pvpanic0"}))
    # It is found through ACPI tables that a microvm has not.
    if not mmio and wanted("vmgenid", "vmgenid"):
        yield from ("-device", option("vmgenid", {"id": "vmgenid0", "guid": "auto"}))


def _ports(plan: Plan, kind: str) -> Iterator[str]:
    if not plan.ports:
        return
    yield from ("-device", option(_serial_bus(kind), {"id": SHELL_BUS, "max_ports": MAX_PORTS}))
    for name, channel in plan.ports:
        yield from _chardev(channel)
        yield from ("-device", option("virtserialport", port_settings(name, channel.id)))


def _agent(plan: Plan, kind: str) -> Iterator[str]:
    if plan.agent is not None:
        yield from ("-device", option(_serial_bus(kind), {"id": AGENT_BUS}))
        yield from _chardev(plan.agent)
        yield from ("-device", option("virtserialport", port_settings(AGENT_PORT, plan.agent.id, AGENT_BUS)))


def _serial_bus(kind: str) -> str:
    return "virtio-serial-device" if kind == "microvm" else "virtio-serial-pci"


def port_settings(name: str, chardev: str, bus: str = SHELL_BUS) -> dict[str, str]:
    """Return the properties of a virtserialport on a bus; its id is ``port-`` and its chardev's."""
    return {"id": f"port-{chardev}", "bus": f"{bus}.0", "chardev": chardev, "name": name}


def _shares(plan: Plan, binary: QEMUBinary) -> Iterator[str]:
    """The folders of shares that may come through 9p: their devices are plugged in, these cannot be."""
    for planned in plan_shares(plan.spec):
        share = planned.share
        if share.method in ("auto", "9p") and NINEP in binary.devices:
            settings: dict[str, object] = {"id": planned.id, "path": os.fspath(share.host), "security_model": "none"}
            # Files of several file systems may have the same numbers; the guest has one.
            settings |= {"readonly": share.readonly or None, "multidevs": "remap"}
            yield from ("-fsdev", option("local", settings))
