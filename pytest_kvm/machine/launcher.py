"""Machines made from specs: what a session needs once is found here once."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial

from pytest_kvm.errors import HostError, ImageUnavailable, MachineError, TeardownError
from pytest_kvm.host.accel import Choice, choose, pace, remembered
from pytest_kvm.host.budget import Budget, Share
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.ledger import ledger_name
from pytest_kvm.host.request import NOBODY, Holder
from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.images.kernels.source import Kernel
from pytest_kvm.images.progress import say_nothing
from pytest_kvm.kernel.traces.decoding import Decoder
from pytest_kvm.kernel.traces.memory import Memory
from pytest_kvm.machine.ahead import Ahead
from pytest_kvm.machine.beginning import choose_origin
from pytest_kvm.machine.board import check_board
from pytest_kvm.machine.cloning import FromTemplate
from pytest_kvm.machine.cost import wanted
from pytest_kvm.machine.cpus import check_cpu
from pytest_kvm.machine.devices.checking import check_devices
from pytest_kvm.machine.disks import check_files
from pytest_kvm.machine.firmware import find_firmware
from pytest_kvm.machine.kernels import Kernels, running_kernel
from pytest_kvm.machine.library import Library
from pytest_kvm.machine.machine import Machine
from pytest_kvm.machine.planning import complete, make_plan, reachable, with_memory, with_monitor, with_vmcoreinfo
from pytest_kvm.machine.preserved import Preserved
from pytest_kvm.machine.seeding import Seeds
from pytest_kvm.machine.settings import Settings
from pytest_kvm.machine.sharing.requirements import check_place, chosen
from pytest_kvm.machine.sharing.shares import Sharing
from pytest_kvm.machine.snapshots import Snapshot
from pytest_kvm.machine.starting import Boot, Origin
from pytest_kvm.machine.templates import Templates
from pytest_kvm.machine.vm import VM
from pytest_kvm.qemu.binary import QEMUBinary, find_qemu
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.plan import Plan, PlannedDrive, without_forwards, without_shares
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.size import parse_memory
from pytest_kvm.spec.vm import VMSpec

_log = logging.getLogger("pytest_kvm")


class Launcher:
    """Makes machines; one per pytest process, usable from any thread.

    ``timeout`` is what machines may take to become ready, in seconds (None: the usual time, more while they get on);
    ``report`` is told about what takes time. ``leave`` is called with each machine that has ended, as long as its logs
    are there. ``heir`` takes over machines that do not come up, still running, and closes them later (None: they are
    closed at once).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout: float | None = None,
        report: Callable[[str], None] | None = None,
        leave: Callable[[VM], None] | None = None,
        heir: Callable[[Machine], None] | None = None,
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._report = report or say_nothing
        self._leave = leave
        self._heir = heir
        self._lock = threading.Lock()
        self._io: IOThread | None = None
        self._library: Library | None = None
        self._budget: Budget | None = None
        # By their names: those of the catalogue stay what they are for a session.
        self._images: dict[str, Image] = {}
        # Why an image cannot be had, by its name.
        self._missing: dict[str, str] = {}
        self._seeds = Seeds()
        self._sharing = Sharing()
        self._ahead = Ahead(self._make_clone, self._spare)
        self._catalogue = Catalogue(
            binary=lambda: self.binary,
            described=settings.images,
            offline=settings.offline,
            archive=settings.archive,
            keyring=settings.keyring,
            report=self._report,
        )
        self._kernels = Kernels(self._catalogue)
        self._traces = Memory()
        self._accel = cache(self._choose)

    @cached_property
    def binary(self) -> QEMUBinary:
        """The QEMU that is used; raises QEMUNotFound."""
        return find_qemu(self._settings.qemu, memory=cache_dir() / "host")

    def _choose(self, accel: str) -> Choice:
        news = accel == "auto" and remembered(self.binary) is None
        choice = choose(accel, self.binary)
        if news and choice.reason:  # the header could not know yet, and emulation is slow
            self._report(f"accel={choice}")
        return choice

    def library(self) -> Library:
        """Return the session's templates."""
        with self._lock:
            if self._library is None:
                store = Templates(cache_dir() / "templates", report=self._report)
                with contextlib.suppress(OSError):  # whoever wants to use it will tell
                    store.sweep()
                limit = self._settings.template_limit
                self._library = Library(store, limit=limit, report=self._report)
            return self._library

    def budget(self) -> Budget:
        """Return what the machines of all sessions of the user share on this host."""
        with self._lock:
            if self._budget is None:
                self._budget = Budget(
                    cache_dir() / "budget" / ledger_name(),
                    self._settings.limits,
                    run=self._settings.run,
                    report=self._report,
                    give_up=self._ahead.close,
                )
            return self._budget

    def io(self) -> IOThread:
        """Return the session's I/O thread."""
        with self._lock:
            if self._io is None:
                self._io = IOThread()
            return self._io

    def reserve(self, specs: Iterable[VMSpec], holder: Holder = NOBODY) -> list[Share]:
        """Return shares of the budget for machines, all of them together; waits for its turn while that is safe.

        Raises SpecError, BudgetExceeded, and HostError when an image that says how large its machine is cannot be had.
        """
        return self.budget().take([wanted(self._sized(spec, self._image)) for spec in specs], holder)

    def _sized(self, spec: VMSpec, image_of: Callable[[VMSpec], Image | None]) -> VMSpec:
        if spec.memory is not None or spec.numa:
            return with_memory(spec, None)
        return with_memory(spec, image_of(spec))

    def create(
        self, spec: VMSpec, snapshot: Snapshot | None = None, *, holder: Holder = NOBODY, share: Share | None = None
    ) -> VM:
        """Make a machine and start it, unless ``autostart=False``; returns when it is ready.

        It begins with the ``snapshot``, if there is one, which is of a machine with the same spec. It takes the
        ``share`` of the budget that was reserved for it, or one of its own for the ``holder``. Raises SpecError,
        HostError or MachineError; then nothing is left of it.
        """
        if snapshot is None and share is None:
            ready = self._ahead.take(spec, holder)
            if ready is not None:
                return self._leaving(ready)
        if share is None:
            (share,) = self.reserve([spec], holder)
        self._ahead.make_room()
        try:
            vm = self._make(spec, snapshot)
        except BaseException:
            share.release()
            raise
        vm._share = share
        try:
            if spec.autostart:
                vm.start()
        except MachineError:
            vm.abandon()
            raise
        except BaseException:
            vm.close()
            raise
        return vm

    def reopen(self, preserved: Preserved) -> VM:
        """Bring back a machine that was saved when its test failed; it is as it was then, and ends with ``close``.

        It takes its share of the budget, and waits for it. Raises HostError, and MachineError when QEMU does not take
        its state.
        """
        (share,) = self.reserve([preserved.spec])
        try:
            vm = self._machine(preserved.spec, preserved.plan, preserved.image, preserved)
        except BaseException:
            share.release()
            raise
        vm._share = share
        try:
            vm.start()
        except BaseException:
            vm.close()
            raise
        return vm

    def prepare(self, spec: VMSpec) -> None:
        """Make a machine in the background for a ``create`` to come, if it is the clone of a template that is there."""
        # What is shared may be written until then; who waits for gdb is told when it starts.
        if spec.shares or spec.gdb or self._settings.gdb_wait:
            return
        self._ahead.begin(spec, parse_memory(self._sized(spec, self._known).memory).size)

    def _known(self, spec: VMSpec) -> Image | None:
        return self._images.get(str(spec.image))

    def _spare(self, spec: VMSpec) -> Share | None:
        try:
            return self.budget().prepare(wanted(self._sized(spec, self._known)))
        except HostError as error:
            _log.info("VM %r is not made ahead: %s", spec.name, error)
            return None

    def _make_clone(self, spec: VMSpec) -> VM | None:
        if spec.image is not None and str(spec.image) not in self._images:  # it may have to be made first
            return None
        vm = self._make(spec, None)
        vm.leave = None  # until somebody asks for it
        if isinstance(vm.origin, FromTemplate) and vm.origin.at_hand:
            return vm
        vm.close()
        return None

    def _make(self, spec: VMSpec, snapshot: Snapshot | None) -> VM:
        halted = self._settings.gdb_wait and snapshot is None
        if halted:
            spec = spec.replace(gdb=spec.machine != "none", start="boot")
        spec, kernel = self._kernels.resolve(spec)
        check_files(spec if snapshot is None else spec.replace(user_data=None))  # it has been told already
        accel = self._accel(spec.accel).name
        image, seed = (self._image(spec), None) if snapshot is None else (snapshot.image, snapshot.seed)
        if snapshot is None:
            image = self._kernels.fit(spec, image, kernel)
        if image is not None and snapshot is None:
            image, seed = self._seeds.provide(spec, image)
            image = reachable(image, spec)
        spec = chosen(complete(spec, image), self._settings.share)
        check_place(spec)
        check_board(spec, self.binary)
        if self._settings.vmcore and snapshot is None:
            spec = with_vmcoreinfo(spec, self.binary.devices)
        plan = make_plan(spec, image, accel, seed=seed, firmware=find_firmware(spec, self.binary))
        check_devices(plan, self.binary)
        check_cpu(plan, self.binary)
        if self._settings.monitor:
            plan = with_monitor(plan)
        if halted and plan.gdb is not None:
            plan = replace(plan, halted=True)
        vm = self._machine(spec, plan, image, snapshot or self._origin(spec, plan, image, kernel), kernel)
        vm.sharing = self._sharing
        if plan.gdb is not None:
            vm.announce = self._report
        return vm

    def _kernel_of(self, kernel: Kernel | None, image: Image | None) -> Kernel | None:
        """Return what is known on the host about a machine's kernel."""
        if kernel is None and image is not None and image.kernel is not None:
            return self._kernels.of_image(image)
        return kernel

    def _machine(
        self, spec: VMSpec, plan: Plan, image: Image | None, origin: Origin, kernel: Kernel | None = None
    ) -> VM:
        folder = make_run_dir()
        try:
            vm = VM(
                spec,
                plan,
                binary=self.binary,
                image=image,
                folder=folder,
                io=self.io(),
                timeout=self._timeout,
                pace=pace(plan.accel, self.binary),
                origin=origin,
            )
        except BaseException:
            folder.remove()
            raise
        vm.heir = self._heir
        vm.host_kernel = partial(self._kernel_of, kernel, image)
        vm.vmlinux_files = self._settings.vmlinux
        vm.watcher.decode = Decoder(
            partial(running_kernel, vm), vm.module_files, given=vm.vmlinux_files, memory=self._traces
        )
        return self._leaving(vm)

    def _leaving(self, vm: VM) -> VM:
        vm.leave = partial(self._leave, vm) if self._leave is not None else None
        return vm

    def _origin(self, spec: VMSpec, plan: Plan, image: Image | None, kernel: Kernel | None) -> Origin:
        def build(cold: Sequence[PlannedDrive]) -> VM:
            bare = spec.replace(shares=[])
            return self._machine(bare, without_shares(without_forwards(plan)), image, Boot(cold), kernel)

        return choose_origin(spec, plan, image, binary=self.binary, library=self.library, build=build)

    def _image(self, spec: VMSpec) -> Image | None:
        if spec.image is None:
            return None
        known = self._images.get(str(spec.image)) if isinstance(spec.image, str) else None
        if known is not None:
            return known
        image = self._found(spec.image)
        if self._catalogue.lasts(spec.image):
            self._images[str(spec.image)] = image
        return image

    def _found(self, given: str | os.PathLike[str] | Image) -> Image:
        """Return the image; one that could not be had is not tried again in this session."""
        name = str(given.disk if isinstance(given, Image) else given)
        if name in self._missing:
            raise ImageUnavailable(self._missing[name])
        try:
            return self._catalogue.find(given)
        except ImageUnavailable as error:
            self._missing[name] = str(error)
            raise

    def close(self) -> None:
        """Stop using templates, end the I/O thread; the machines must have been closed before."""
        with self._lock:
            library, self._library = self._library, None
            io, self._io = self._io, None
            budget, self._budget = self._budget, None
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(self._seeds.close)
                stack.callback(self._sharing.close)
                if io is not None:
                    stack.callback(io.close)
                if library is not None:
                    stack.callback(library.close)
                if budget is not None:
                    stack.callback(budget.close)
                stack.callback(self._ahead.close)
        except OSError as error:
            raise TeardownError(f"the seeds of this session cannot be removed: {error}") from error
