"""A process that takes shares of a budget as it is told to, line by line, and says what became of it.

Sizes are in MiB. ``Contender`` is its handle in a test.
"""

from __future__ import annotations

import json
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kvm.errors import HostError
from pytest_kvm.host.amounts import UNLIMITED, Amount, Limits
from pytest_kvm.host.budget import Budget, Share
from pytest_kvm.host.request import Holder, Wanted
from pytest_kvm.waiting import Deadline

MIB = 1 << 20
# Seconds for what takes milliseconds.
PATIENCE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Return when something is so of which nobody tells."""
    deadline = Deadline(PATIENCE)
    while not condition():
        assert not deadline.expired
        time.sleep(0.002)


class Contender:
    """The process, with a budget of so many MiB in a directory."""

    def __init__(self, directory: Path, memory: int, *, run: str = "", machines: int = UNLIMITED) -> None:
        given = json.dumps({"directory": str(directory), "memory": memory, "run": run, "machines": machines})
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.expect("ready")

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line.rstrip("\n"))

    def tell(self, verb: str, name: str = "", *sizes: int, **how: Any) -> None:
        """Let it do something: ``take``, ``release``, ``prepare``, ``keep``, ``end`` …"""
        assert self.process.stdin is not None
        print(json.dumps({"verb": verb, "name": name, "sizes": sizes, **how}), file=self.process.stdin, flush=True)

    def said(self) -> str:
        """Return the next thing that it says."""
        return self._said.get(timeout=PATIENCE)

    def expect(self, beginning: str) -> str:
        """Return the next thing that it says, which begins like that."""
        line = self.said()
        assert line.startswith(beginning), line
        return line

    def do(self, verb: str, name: str = "", *sizes: int, **how: Any) -> str:
        """Let it do something, and return what became of it."""
        self.tell(verb, name, *sizes, **how)
        return self.said()

    @property
    def silent(self) -> bool:
        """Whether it has said nothing more."""
        return self._said.empty()

    def asleep(self) -> bool:
        """Return whether it waits for others, and would see their end."""
        folder = Path("/proc", str(self.pid))
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        try:
            opened = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except FileNotFoundError:  # closed meanwhile
            return False
        return state == "S" and "anon_inode:[pidfd]" in opened

    def blocked(self) -> bool:
        """Return whether it waits for a lock."""
        waiting = rf"-> FLOCK\s+ADVISORY\s+WRITE {self.pid} "
        return re.search(waiting, Path("/proc/locks").read_text()) is not None

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill it; nobody takes notice of its end but the kernel."""
        self.process.kill()

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


class Inside:
    """What the process does."""

    def __init__(self, directory: str, memory: int, run: str, machines: int) -> None:
        self.shares: dict[str, list[Share]] = {}
        self.prepared: Share | None = None
        self.budget = Budget(
            Path(directory),
            Limits(memory=memory * MIB, machines=machines),
            run=run,
            report=lambda line: print("told", line, flush=True),
            give_up=self.give_up,
        )

    def give_up(self) -> None:
        prepared, self.prepared = self.prepared, None
        if prepared is not None:
            print("gives up", flush=True)
            prepared.release()

    def take(self, name: str, sizes: list[int], lasting: bool = False, at_once: bool = False) -> None:
        wanted = [Wanted(f"VM {f'{name}{number}'!r}", Amount(size * MIB, 1, 1)) for number, size in enumerate(sizes)]
        self.shares[name] = self.budget.take(wanted, Holder(f"test_{name}", lasting), at_once=at_once)
        print("took", name, flush=True)

    def release(self, name: str, _: list[int]) -> None:
        for share in self.shares.pop(name):
            share.release()
        print("released", name, flush=True)

    def prepare(self, name: str, sizes: list[int]) -> None:
        self.prepared = self.budget.prepare(Wanted(f"VM {name!r}", Amount(sizes[0] * MIB, 1, 1)))
        print("prepared" if self.prepared is not None else "no room", flush=True)

    def keep(self, name: str, _: list[int]) -> None:
        prepared, self.prepared = self.prepared, None
        if prepared is not None and prepared.keep(Holder(f"test_{name}")):
            self.shares[name] = [prepared]
            print("kept", name, flush=True)
        else:
            print("lost", name, flush=True)

    def beside(self, name: str, _: list[int]) -> None:
        self.shares["beside"] = [self.shares[name][0].beside("its snapshot")]
        print("took beside", flush=True)

    def compete(self, name: str, sizes: list[int], rounds: int) -> None:
        for number in range(rounds):
            self.take(f"{name}{number}", sizes)
            self.release(f"{name}{number}", [])
        print("done", flush=True)

    def full(self, *_: object) -> None:
        """Let no file get any content, as on a full disk."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        print("full", flush=True)

    def end(self, *_: object) -> None:
        self.budget.close()
        print("ended", flush=True)

    def obey(self, line: str) -> None:
        told = json.loads(line)
        verb, name, sizes = told.pop("verb"), told.pop("name"), told.pop("sizes")
        try:
            getattr(self, verb)(name, sizes, **told)
        except HostError as error:
            print(f"{type(error).__name__}:", str(error).replace("\n", " | "), flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)


def main() -> None:
    inside = Inside(**json.loads(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        inside.obey(line)


if __name__ == "__main__":
    main()
