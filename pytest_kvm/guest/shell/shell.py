"""The guest's root shell: as many lanes as commands run at once, plugged in when they are needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.errors import MachineError, ShellLost
from pytest_kvm.guest import record
from pytest_kvm.guest.result import Command, script_of, shorten
from pytest_kvm.guest.runner import Ended, Runner
from pytest_kvm.guest.shell.control import Control
from pytest_kvm.guest.shell.job import Job
from pytest_kvm.guest.shell.lane import BROKEN, PORTS, Lane, SavedLane
from pytest_kvm.guest.shell.popen import GuestProcess
from pytest_kvm.guest.shell.resume import PORT as RESUME
from pytest_kvm.guest.shell.resume import Resume
from pytest_kvm.journal import Journal
from pytest_kvm.qemu.cmdline import MAX_PORTS, port_settings
from pytest_kvm.qemu.iothread import IOThread
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.qemu.sockets import connect
from pytest_kvm.waiting import Deadline, Watch

if TYPE_CHECKING:
    import socket

PREFIX = "org.pytest-kvm."
# The control port takes one of QEMU's 31.
MAX_LANES = (MAX_PORTS - 1) // len(PORTS)
# A killed command's status comes within milliseconds; a guest that is not answering at all is given this long.
_KILL_PATIENCE = 5.0
_NEWS_PATIENCE = 1.0
# To save the machine's state may wait for a guest that is slow.
_HOLD_PATIENCE = 30.0


def first_ports() -> list[str]:
    """Return the names, without prefix, of the ports that a machine starts with."""
    return ["control", RESUME, *lane_ports(0)]


def lane_ports(number: int) -> list[str]:
    """Return the names, without prefix, of a lane's ports."""
    return [f"{number}.{port}" for port in PORTS]


class Shell(Runner):
    """Runs commands in the guest over virtio-serial; usable from any thread."""

    def __init__(self, *, name: str, folder: Path, io: IOThread, watch: Watch, internet: bool, user: str) -> None:
        self.name = name
        self.internet = internet
        self._folder = folder
        self._io = io
        self._watch = watch
        self._qmp: QMP | None = None
        self.user = user
        self._lanes: list[Lane] = []
        self._control: Control
        self._resume: Resume
        self._growing: asyncio.Lock
        self._jobs: set[asyncio.Task[None]] = set()

    def attach(self, connections: Mapping[str, socket.socket]) -> None:
        """Take over the connections to the first ports, by name."""
        self._io.call(self._attach, connections)

    def use(self, qmp: QMP) -> None:
        """Plug further lanes in with this QMP session."""
        self._qmp = qmp

    def _attach(self, connections: Mapping[str, socket.socket]) -> None:
        self._growing = asyncio.Lock()
        self._control = Control(connections["control"])
        self._resume = Resume(connections[RESUME])
        for name, connection in connections.items():
            number, _, port = name.partition(".")
            if port:
                self._lane(int(number)).attach(port, connection)

    def _lane(self, number: int) -> Lane:
        while len(self._lanes) <= number:
            self._lanes.append(Lane(len(self._lanes), folder=self._folder, watch=self._watch))
        return self._lanes[number]

    @property
    def ready(self) -> bool:
        """Whether the guest serves commands."""
        return bool(self._lanes) and self._lanes[0].ready.is_set()

    def lose(self, reason: str) -> None:
        """The guest was reset: its shell is gone, and comes back when it has booted. In the I/O thread."""
        for lane in self._lanes:
            lane.lose(reason)
        self._control.lose()

    def close(self) -> None:
        """Close all connections; commands in flight are lost."""
        self._io.call(self._close)

    def _close(self) -> None:
        if self._lanes:
            for lane in self._lanes:
                lane.close()
            self._control.close()
            self._resume.close()
        for task in self._jobs:
            task.cancel()

    # Clones

    @contextlib.contextmanager
    def held(self, deadline: Deadline) -> Iterator[None]:
        """Begin no command inside the block, in which the machine's state is saved.

        Raises MachineError when a command is on its way that the guest does not take.
        """
        try:
            self._io.run(asyncio.wait_for(self._hold(), deadline.remaining()))
        except TimeoutError as error:
            self._watch.check()
            raise MachineError(
                f"VM {self.name!r}: commands wait for the guest's shell, for {deadline.seconds or 0.0:g} s"
            ) from error
        try:
            yield
        finally:
            self._io.call(self._growing.release)

    async def _hold(self) -> None:
        await self._growing.acquire()
        try:
            for lane in self._lanes:
                while lane.job is not None and not lane.job.number:
                    await asyncio.sleep(0)
                job = lane.job
                # What is still in a socket would be in no clone: wait until the command runs.
                while job is not None and lane.job is job:
                    if await self._control.ask(f"signal 0 {lane.number} {job.number}", patience=_HOLD_PATIENCE) == "0":
                        break
        except BaseException:
            self._growing.release()
            raise

    def saved(self) -> list[SavedLane]:
        """Return what clones of the machine, which has stopped, need to know."""
        return self._io.call(lambda: [lane.saved() for lane in self._lanes])

    def resume(self, lanes: Iterable[SavedLane], deadline: Deadline) -> None:
        """Go on where the machine was when its state was saved, with the time of day and random numbers of its own.

        Raises TimeoutError when the guest does not answer, or the machine's failure.
        """
        try:
            self._io.run_watched(self._resumed(lanes), self._watch, deadline)
        except OSError:
            # The connection breaks a moment before the process has ended, which tells more.
            self._watch.wait_only(lambda: self._watch.failed, Deadline(1))
            self._watch.check()
            raise

    async def _resumed(self, lanes: Iterable[SavedLane]) -> None:
        self._restore(lanes)
        await self._resume.repair()

    def restore(self, lanes: Iterable[SavedLane]) -> None:
        """Go on where the machine was when its state was saved, without a word to the guest."""
        self._io.call(self._restore, lanes)

    def _restore(self, lanes: Iterable[SavedLane]) -> None:
        for saved in lanes:
            self._lane(saved.number).restore(saved)

    def forget(self, reason: str) -> None:
        """Give up all commands."""
        self._io.call(self.lose, reason)

    @property
    def ports(self) -> list[str]:
        """The names, without prefix, of all ports that there are, in the order in which they were made."""
        return [*first_ports(), *(port for lane in self._lanes[1:] for port in lane_ports(lane.number))]

    # Lanes. In the I/O thread.

    async def _serve(self, job: Job) -> None:
        try:
            while True:
                lane = await self._free_lane()
                if await lane.run(job):
                    return
        except asyncio.CancelledError:
            job.give_up("it was never started")
            raise
        except (MachineError, OSError) as error:
            job.give_up(str(error), error)

    async def _free_lane(self) -> Lane:
        async with self._growing:
            unused = [lane for lane in self._lanes if lane.job is None and not lane.cut]
            free = [lane for lane in unused if not lane.suspect]
            if not free and len(self._lanes) < MAX_LANES:
                free = [await self._plug()]
            if not free:
                # Who was left behind may have ended meanwhile.
                free = [lane for lane in self._lanes if lane.job is None and not lane.cut]
                for lane in free:
                    lane.suspect = False
            if not free:
                raise MachineError(
                    f"VM {self.name!r}: {MAX_LANES} commands run already, which is the limit of its shell; "
                    "end one, or start some over vm.ssh"
                )
            lane = free[0]
            if not lane.ready.is_set():
                # The guest was reset since: it starts only the first lane by itself.
                if lane.number:
                    await self._control.ask(f"lane {lane.number}")
                await lane.ready.wait()  # as long as the job's own deadline allows
            lane.job = Job(b"", stdin=False, watch=self._watch)  # taken
            return lane

    async def _plug(self) -> Lane:
        number = len(self._lanes)
        if self._qmp is None:
            raise MachineError(f"VM {self.name!r} is not up yet: its shell takes one command at a time")
        lane = Lane(number, folder=self._folder, watch=self._watch)
        for port in lane_ports(number):
            chardev = f"shell-{port}"
            path = self._folder / port
            address = {"type": "unix", "data": {"path": str(path)}}
            backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
            await self._qmp.execute_async("chardev-add", {"id": chardev, "backend": backend})
            if not port.endswith(".in"):
                lane.attach(port.partition(".")[2], connect(path))
            settings = port_settings(f"{PREFIX}{port}", chardev)
            await self._qmp.execute_async("device_add", {"driver": "virtserialport", **settings})
        self._lanes.append(lane)  # the guest is asked to serve it by whoever takes it
        return lane

    # Commands. In the caller's thread.

    def start(self, script: str, *, stdin: bool, on_end: record.Ended | None = None) -> Job:
        """Start a script; returns at once. ``on_end`` is called in the I/O thread when it has ended."""
        self._watch.check()
        job = Job(script.encode(errors="surrogateescape"), stdin=stdin, watch=self._watch)
        job.on_end = on_end

        def begin() -> None:
            task = job.task = asyncio.get_running_loop().create_task(self._serve(job))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)

        self._io.call(begin)
        return job

    def signal(self, job: Job, name: str) -> None:
        """Send a signal (``TERM``) to the process group of a job that is running."""
        if job.lane is not None and not job.ended:
            self._io.run(self._control.ask(f"signal {name} {job.lane.number} {job.number}"))

    def print_to_console(self, message: str, patience: float) -> bool:
        """Let the kernel print a message of one word, after all that it has printed; return whether it was asked to.

        Also while commands run. Raises ShellLost when the guest does not answer within ``patience`` seconds.
        """
        return self._io.run(self._control.ask(f"print {message}", patience=patience)) == "0"

    def send(self, job: Job, data: bytes) -> None:
        """Put data into the standard input of a job, and wait for it to go; raises BrokenPipeError if it does not."""
        self._io.run_watched(job.send(data), self._watch, Deadline(None))

    def wait(self, job: Job, deadline: Deadline, *, or_full: bool = False) -> bool:
        """Wait for the end of a job, or until one of its streams is full; False when the deadline came first."""
        return self._watch.wait_for(lambda: job.ended or (or_full and bool(job.full)), deadline)

    @property
    def _waits_on(self) -> Watch:
        return self._watch

    @property
    def via(self) -> str:
        """The way and the user."""
        return f"shell, as {self.user}"

    def _execute(self, script: str, shown: str, data: bytes | None, deadline: Deadline) -> Ended:
        process = GuestProcess(self, self._io, self.start(script, stdin=data is not None), args=shown, text=False)
        if data is not None:
            process.feed(data)
        job = process.job
        self.wait(job, deadline, or_full=True)
        flooded = job.full
        job.drop()
        if job.ended:
            if job.status is None:
                raise self.lost(process)
            return Ended(job.status, job.out.everything(), job.err.everything())
        if self._io.call(self._withdraw, job):
            return Ended(None, b"", b"", "was never started: the guest's shell was not there to take it")
        # Where the guest does not even answer that, there is nothing more to do than to leave it its lane.
        with contextlib.suppress(ShellLost, OSError):
            self.signal(job, "KILL")
        fate = "was killed"
        if not self.wait(job, Deadline(_KILL_PATIENCE)):
            self._io.call(self._retire, job)
            fate = "could not be killed"
        return Ended(None, job.out.everything(), job.err.everything(), fate, flooded)

    def popen(
        self,
        command: Command,
        *,
        stdin: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        text: bool = True,
        journal: Journal | None = None,
    ) -> GuestProcess:
        """Start a command in the background, and remember it in the journal; see VM.popen."""
        shown = script_of(command)
        on_end = record.begun(journal, shown, self.via)
        job = self.start(script_of(command, env=env, cwd=cwd), stdin=stdin, on_end=on_end)
        return GuestProcess(self, self._io, job, args=shown, text=text)

    def _withdraw(self, job: Job) -> bool:
        """Take back a job that has no lane yet; return False when it has one."""
        if job.lane is not None or job.task is None:
            return False
        job.task.cancel()
        return True

    def _retire(self, job: Job) -> None:
        """Give up a lane whose command does not even die: in an uninterruptible sleep, say."""
        if job.lane is not None and job.lane.job is job:
            job.lane.abandon("it did not end when it was killed")
        elif job.task is not None:
            job.task.cancel()  # it is between two lanes, which say that they are busy

    def lost(self, process: GuestProcess) -> Exception:
        """Return the error for a command that will never have a status."""
        if process.job.lost == BROKEN:
            # The connection breaks a moment before QEMU's end is known, which tells more.
            self._watch.wait_only(lambda: self._watch.failed, Deadline(_NEWS_PATIENCE))
        self._watch.check()
        if process.job.refusal is not None:
            return process.job.refusal
        return ShellLost(
            f"VM {self.name!r}: no answer to command {shorten(process.args)}: {process.job.lost}",
            command=process.args,
        )
