"""From what a test asks for, and the image, to what QEMU is told."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pytest_kvm.errors import SpecError
from pytest_kvm.guest.shell.shell import PREFIX, first_ports
from pytest_kvm.host.clock import tsc_khz
from pytest_kvm.images.builtin.tiny import direct_kernel
from pytest_kvm.machine.board import new_cid
from pytest_kvm.qemu.devices import driver_of
from pytest_kvm.qemu.plan import (
    GDB,
    IMAGE_DISK,
    MONITOR,
    SEED_DISK,
    Channel,
    Plan,
    PlannedFirmware,
    Ram,
    has_backend,
    machine_kind,
    plan_nics,
)
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.devices.board import VirtioPmem
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.firmware import UEFI
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.numa import memory_text
from pytest_kvm.spec.size import DEFAULT_MEMORY, parse_memory
from pytest_kvm.spec.vm import VMSpec

Declared = TypeVar("Declared", str, BaseDevice, str | BaseDevice)
VMCOREINFO = "vmcoreinfo"
EXTRAS = ("balloon", "rng", "pvpanic", "vmgenid", "rootports")
# What UEFI, which stays in memory, leaves of 256 MiB is too little for an initramfs: "Failed to load initrd".
UEFI_MEMORY = "512M"
# The guest's kernel speaks on the first serial port; a panic ends it, where nothing catches it before.
KERNEL_APPEND = "console=ttyS0 panic=-1"
_WAYS = {"shell": "our shell", "ssh": "SSH, as far as is known", "agent": "the QEMU guest agent, as far as is known"}
_NOT_YET = -1  # a descriptor that is filled in at each start


def reachable(image: Image, spec: VMSpec) -> Image:
    """Return the image as it can be reached: a machine without a network has no SSH."""
    if image.shell or image.ssh_user is None or spec.nics is None or spec.nics:
        return image
    ready = None if image.ready == "ssh" else image.ready
    settled, resume = (image.settled, image.resume) if image.agent else (None, ())
    return replace(
        image, ssh_user=None, ssh_key=None, ssh_host_key=None, sudo=False, ready=ready, settled=settled, resume=resume
    )


def with_memory(spec: VMSpec, image: Image | None) -> VMSpec:
    """Return the spec with its memory: what it says, its nodes have, image and firmware need, or the usual."""
    if spec.memory is not None:
        return spec
    if spec.numa:
        return spec.replace(memory=memory_text(spec.numa))
    memory = image.memory if image is not None and image.memory is not None else DEFAULT_MEMORY
    if spec.firmware in UEFI and parse_memory(memory).size < parse_memory(UEFI_MEMORY).size:
        memory = UEFI_MEMORY
    return spec.replace(memory=memory)


def complete(spec: VMSpec, image: Image | None) -> VMSpec:
    """Return the spec with what depends on the image filled in; raises SpecError for what the image does not offer."""
    for way, offer in _WAYS.items():
        if spec.ready == way and (image is None or way not in image.ways):
            label = image.label if image is not None else None
            raise SpecError(f"vm(ready={way!r}): image {label!r} does not offer {offer}", keyword="ready")
    spec = with_memory(spec, image)
    if image is not None:
        spec = spec.replace(cpu=spec.cpu or image.cpu, devices=[*_needed(spec, image), *spec.devices])
    spec = spec.replace(devices=[sized(device) for device in spec.devices])
    if spec.extras is None:
        return spec.replace(extras=list(EXTRAS) if spec.image is not None else [])
    return spec


def sized(device: Declared) -> Declared:
    """Return a device whose size is its file's with that; raises SpecError."""
    if not isinstance(device, VirtioPmem) or device.file is None or device.size is not None:
        return device
    try:
        return replace(device, size=Path(device.file).stat().st_size)
    except OSError as error:
        raise SpecError(f"{device!r}: {error.strerror}", keyword="devices", value=device) from error


def with_vmcoreinfo(spec: VMSpec, known: Collection[str]) -> VMSpec:
    """Return the spec with the device that lets a Linux kernel say where everything in its memory is.

    QEMU has it where it has fw_cfg (docs/specs/vmcoreinfo.rst); there it is once at most.
    """
    fitting = spec.image is not None and machine_kind(spec.machine) in ("q35", "pc")
    if not fitting or VMCOREINFO not in known or VMCOREINFO in _drivers(spec):
        return spec
    return spec.replace(devices=[*spec.devices, VMCOREINFO])


def _needed(spec: VMSpec, image: Image) -> list[str]:
    """Return the image's devices that the machine does not have; its boot loader's, which a kernel does without."""
    if spec.kernel is not None or machine_kind(spec.machine) in ("microvm", "none"):
        return []
    declared = _drivers(spec)
    return [device for device in image.devices if driver_of(device, "") not in declared]


def _drivers(spec: VMSpec) -> set[str]:
    kind = machine_kind(spec.machine)
    return {driver_of(device, kind) for device in spec.devices}


def make_plan(
    spec: VMSpec,
    image: Image | None,
    accel: str,
    *,
    seed: Path | None = None,
    firmware: PlannedFirmware | None = None,
) -> Plan:
    """Return the plan of a complete spec, without files for its drives.

    ``accel`` is the accelerator that was chosen, ``seed`` the file of the image's seed, ``firmware`` what is there in
    place of QEMU's own. Raises SpecError.
    """
    kind = machine_kind(spec.machine)
    kernel = spec.kernel or (image.kernel if image else None)
    if kernel is not None and _starts_direct(spec, accel, firmware):
        kernel = direct_kernel(Path(kernel))
    initrd = spec.initrd or (image.initrd if image else None)
    if image is not None and image.disk is not None:
        disk = Drive(image.disk, format=image.format, id=IMAGE_DISK)
        spec = spec.replace(drives=[disk, *spec.drives])
    if seed is not None:
        # The last disk, so that the test's have the letters that they would have without it. Not a CD-ROM: cloud
        # kernels have no driver for AHCI, and all look for a seed on virtio disks.
        spec = spec.replace(drives=[*spec.drives, Drive(seed, format="raw", readonly=True, id=SEED_DISK)])
    text = _accel_text(spec.accel, accel)
    base = image.append if image is not None else ""
    if "console=" not in base:
        base = f"{KERNEL_APPEND} {base}"
    parts = (base.strip(), _clock(kind, text, spec.append), _patience(text), _places(spec), spec.append)
    append = " ".join(part for part in parts if part and kernel)
    if spec.append and kernel is None:
        raise SpecError(
            f"vm(append={spec.append!r}): there is no kernel to give it to; name one with kernel=",
            keyword="append",
        )
    shell = image is not None and image.shell and kind != "none"
    agent = image is not None and image.agent and kind != "none"
    forwards = [parse_hostfwd(value) for value in spec.hostfwd]
    # So does SeaBIOS in a file of the user's; what OVMF would say there is not for people.
    speaks = kernel is None and kind in ("q35", "pc") and (firmware is None or not firmware.flash)
    return Plan(
        spec=spec,
        accel=text,
        qmp=Channel("qmp", _NOT_YET, connected=False),
        console=Channel("console", _NOT_YET) if kind != "none" else None,
        seabios=Channel("firmware", _NOT_YET) if speaks else None,
        firmware=firmware,
        kernel=Path(kernel) if kernel is not None else None,
        initrd=Path(initrd) if initrd is not None else None,
        append=append,
        nics=plan_nics(spec, forwards, [new_mac() for _ in range(len(spec.nics or ()) + 1)]),
        ports=shell_ports(first_ports() if shell else ()),
        agent=Channel("agent", _NOT_YET) if agent else None,
        cid=new_cid() if spec.vsock else None,
        tpm=Channel("swtpm", _NOT_YET) if spec.tpm else None,
        gdb=Channel(GDB, _NOT_YET, connected=False) if spec.gdb else None,
        extras=tuple(spec.extras or ()),
        ram=Ram() if has_backend(spec) else None,
    )


def with_monitor(plan: Plan) -> Plan:
    """Return the plan of the same machine with a second QMP monitor."""
    return replace(plan, monitor=Channel(MONITOR, _NOT_YET, connected=False))


def shell_ports(names: Sequence[str]) -> list[tuple[str, Channel]]:
    """Return the shell's ports with their chardevs; each standard input is connected when a command has one."""
    return [(PREFIX + name, Channel(f"shell-{name}", _NOT_YET, connected=not name.endswith(".in"))) for name in names]


def _accel_text(asked: str, chosen: str) -> str:
    """Return QEMU's text: the chosen accelerator with the properties that were asked for."""
    _, comma, properties = asked.partition(",")
    return chosen + comma + properties


def _starts_direct(spec: VMSpec, accel: str, firmware: PlannedFirmware | None) -> bool:
    """Return whether a kernel that need not unpack itself is better, and can be started.

    Emulated, a quarter of the time until Linux is ready goes into unpacking it. UEFI starts a bzImage only. And only
    for that one the firmware itself says where the initramfs can be in memory: otherwise QEMU supposes that the tables
    of ACPI need 160 KiB (hw/i386/pc.c, acpi_data_size), and with the log of a TPM they need more.
    """
    usual = firmware is None and machine_kind(spec.machine) in ("q35", "pc", "microvm")
    tables = spec.tpm or spec.args or any(isinstance(each, str) and each.startswith("tpm") for each in spec.devices)
    return accel == "tcg" and usual and not tables


def _clock(kind: str, accel: str, append: str) -> str:
    """Return what a microvm's kernel has to be told about time: emulated, it has nothing to calibrate its TSC by.

    Without that Linux 6.12 hangs before its first timer tick. With TCG the guest reads the host's counter.
    """
    frequency = tsc_khz()
    if kind != "microvm" or not accel.startswith("tcg") or "tsc_early_khz" in append or frequency is None:
        return ""
    return f"tsc_early_khz={frequency}"


def _patience(accel: str) -> str:
    """Return how long an emulated kernel may wait for itself before it complains: its deadlines are for real hardware.

    These are its maxima, 300 and two times 60 s (Linux, Documentation/admin-guide: kernel-parameters.txt and
    lockup-watchdogs.rst). What a test appends comes later, and wins. On a busy host it panics at boot, "IO-APIC + timer
    doesn't work!", when ten ticks do not come while it counts its own loops: no_timer_check lets it not count.
    """
    limits = "rcupdate.rcu_cpu_stall_timeout=300 watchdog_thresh=60 no_timer_check"
    return limits if accel.startswith("tcg") else ""


def _places(spec: VMSpec) -> str:
    """Return what keeps a kernel where it was linked to be, without which gdb does not find its way in it."""
    return "nokaslr" if spec.gdb and "kaslr" not in spec.append else ""


def new_mac() -> str:
    """Return a random address under QEMU's prefix: unique enough also between sessions and hosts."""
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in secrets.token_bytes(3))
