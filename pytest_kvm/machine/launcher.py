"""Machines made from specs: what a session needs once is found here once."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pytest_kvm.errors import SpecError
from pytest_kvm.guest.shell import PREFIX, first_ports
from pytest_kvm.host.accel import choose
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.clock import tsc_khz
from pytest_kvm.host.rundir import make_run_dir, remove_run_dir
from pytest_kvm.images.catalogue import find_image
from pytest_kvm.images.image import Image
from pytest_kvm.machine.disks import check_files, prepare
from pytest_kvm.machine.settings import Settings
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.binary import QEMUBinary, find_qemu
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.plan import IMAGE_DISK, Channel, Plan, machine_kind, plan_drives, plan_nics
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.forward import parse_hostfwd
from pytest_kvm.spec.vm import VMSpec

EXTRAS = ("balloon", "rng", "pvpanic", "vmgenid", "rootports")
# The guest's kernel speaks on the first serial port; a panic ends it, where nothing catches it before.
KERNEL_APPEND = "console=ttyS0 panic=-1"
_NOT_YET = -1  # a descriptor that is filled in at each start


class Launcher:
    """Makes machines; one per pytest process, usable from any thread.

    ``timeout`` is the default for becoming ready, in seconds; ``report`` is told about what takes time.
    """

    def __init__(
        self, settings: Settings, *, timeout: float = 120.0, report: Callable[[str], None] | None = None
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._report = report
        self._lock = threading.Lock()
        self._io: IOThread | None = None

    @cached_property
    def binary(self) -> QEMUBinary:
        """The QEMU that is used; raises QEMUNotFound."""
        return find_qemu(self._settings.qemu, memory=cache_dir() / "host")

    def io(self) -> IOThread:
        """Return the session's I/O thread."""
        with self._lock:
            if self._io is None:
                self._io = IOThread()
            return self._io

    def create(self, spec: VMSpec) -> VM:
        """Make a machine and start it, unless ``autostart=False``; returns when it is ready.

        Raises SpecError, HostError or MachineError; then nothing is left of it.
        """
        check_files(spec)
        binary = self.binary
        accel = choose(spec.accel, binary).name
        image = self._image(spec)
        if spec.extras is None:
            spec = spec.replace(extras=list(EXTRAS) if spec.image is not None else [])
        _check_ready(spec, image)
        plan = _plan(spec, image, _accel_text(spec.accel, accel))
        drives = plan_drives(plan.spec)
        folder = make_run_dir()
        try:
            plan = replace(plan, drives=prepare(drives, folder, binary))
            vm = VM(spec, plan, binary=binary, image=image, folder=folder, io=self.io(), timeout=self._timeout)
        except BaseException:
            remove_run_dir(folder)
            raise
        try:
            if spec.autostart:
                vm.start()
        except BaseException:
            vm.close()
            raise
        return vm

    def _image(self, spec: VMSpec) -> Image | None:
        if spec.image is None:
            return None
        settings = self._settings
        return find_image(
            spec.image,
            offline=settings.offline,
            archive=settings.archive,
            keyring=settings.keyring,
            report=self._report,
        )

    def close(self) -> None:
        """End the I/O thread; the machines must have been closed before."""
        with self._lock:
            if self._io is not None:
                self._io.close()
                self._io = None


def _accel_text(asked: str, chosen: str) -> str:
    """Return QEMU's text: the chosen accelerator with the properties that were asked for."""
    _, comma, properties = asked.partition(",")
    return chosen + comma + properties


def _check_ready(spec: VMSpec, image: Image | None) -> None:
    if spec.ready == "shell" and (image is None or not image.shell):
        raise SpecError(f"vm(ready='shell'): image {spec.image!r} does not offer our shell", keyword="ready")
    if spec.ready == "ssh" and (image is None or image.ssh_user is None):
        raise SpecError(f"vm(ready='ssh'): nothing is known about SSH in image {spec.image!r}", keyword="ready")


def _plan(spec: VMSpec, image: Image | None, accel: str) -> Plan:
    kind = machine_kind(spec.machine)
    kernel = spec.kernel or (image.kernel if image else None)
    initrd = spec.initrd or (image.initrd if image else None)
    if image is not None and image.disk is not None:
        disk = Drive(image.disk, format=image.disk_format, id=IMAGE_DISK)
        spec = spec.replace(drives=[disk, *spec.drives])
    base = image.append if image is not None and image.append else KERNEL_APPEND if kernel is not None else ""
    append = " ".join(part for part in (base, _clock(kind, accel, spec.append), spec.append) if part and kernel)
    if spec.append and kernel is None:
        raise SpecError(
            f"vm(append={spec.append!r}): there is no kernel to give it to; name one with kernel=",
            keyword="append",
        )
    shell = image is not None and image.shell and kind != "none"
    forwards = [parse_hostfwd(value) for value in spec.hostfwd]
    return Plan(
        spec=spec,
        accel=accel,
        qmp=Channel("qmp", _NOT_YET, connected=False),
        console=Channel("console", _NOT_YET) if kind != "none" else None,
        kernel=Path(kernel) if kernel is not None else None,
        initrd=Path(initrd) if initrd is not None else None,
        append=append,
        nics=plan_nics(spec, forwards, [_new_mac() for _ in range(len(spec.nics or ()) + 1)]),
        ports=[
            (PREFIX + port, Channel(f"shell-{port}", _NOT_YET, connected=not port.endswith(".in")))
            for port in (first_ports() if shell else ())
        ],
        extras=tuple(spec.extras or ()),
    )


def _clock(kind: str, accel: str, append: str) -> str:
    """Return what a microvm's kernel has to be told about time: emulated, it has nothing to calibrate its TSC by.

    Without that Linux 6.12 hangs before its first timer tick. With TCG the guest reads the host's counter.
    """
    frequency = tsc_khz()
    if kind != "microvm" or not accel.startswith("tcg") or "tsc_early_khz" in append or frequency is None:
        return ""
    return f"tsc_early_khz={frequency}"


def _new_mac() -> str:
    """Return a random address under QEMU's prefix: unique enough also between sessions and hosts."""
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in secrets.token_bytes(3))
