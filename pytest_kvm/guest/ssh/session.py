"""One command over SSH, on a channel of its own, with its three streams.

It imports paramiko, and is to be imported when a connection is made.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
from collections.abc import Callable

import paramiko

from pytest_kvm.guest.result import OUTPUT_LIMIT
from pytest_kvm.guest.ssh.transport import GuestTransport
from pytest_kvm.waiting import Deadline, Watch

Send = Callable[[bytes], None]
"""Takes what goes to the command's stdin; raises Unread when the command reads no more."""
Read = Callable[[int], bytes]
"""Returns at most so many bytes of the command's stdout, and none at its end."""

# Servers limit a command's length: dropbear to 9000 bytes, and until 2015 to 1024 (MAX_CMD_LEN), OpenSSH to what fits
# into one packet.
_DROPBEAR = re.compile("dropbear(?:_([0-9]{4}))?")
_LONGEST_ELSEWHERE = 100_000
_PIECE = 1 << 16
# SSH knows a request for a signal, which dropbear does not fulfil, and OpenSSH not for root; nor does an old dropbear
# give a command a process group. So: all descendants of the process that serves the connection, but for this one.
_KILL = b"""\
k() (
c=$(grep -ls "^PPid:.$1\\$" /proc/[0-9]*/status)
[ "$1" = $PPID ] || kill -9 "$1"
for p in $c; do p=${p#/proc/}; p=${p%/status}; [ "$p" = $$ ] || k "$p"; done
)
k $PPID
"""
_KILL_PATIENCE = 5.0
# What a thread is given to notice that its channel was closed, or its command killed.
_CLOSE_PATIENCE = 2.0

# What paramiko raises when the connection, or the channel, has ended.
_BROKEN = (paramiko.SSHException, OSError, EOFError)


class Unread(Exception):
    """The command has closed its stdin, which it may."""


class Session:
    """A command that runs. paramiko waits in ways that nothing can interrupt: in threads, for which we wait.

    ``produce`` writes the command's stdin, ``consume`` reads its stdout; without them there is no input, and ``out``
    is the output. ``opened`` says that the guest may have begun the command, ``failure`` is what ``produce`` or
    ``consume`` raised, ``trouble`` what happened on the way, ``flooded`` the stream on which more came than is kept.
    """

    def __init__(
        self,
        transport: GuestTransport,
        script: bytes,
        *,
        watch: Watch,
        produce: Callable[[Send], None] | None = None,
        consume: Callable[[Read], None] | None = None,
    ) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.opened = False
        self.flooded = ""
        self.failure: Exception | None = None
        self.trouble: Exception | None = None
        self.transport = transport
        self._watch = watch
        self._produce = produce
        self._consume = consume or self._keep
        self._channel: paramiko.Channel | None = None
        self._working = 0
        self._begin(self._converse, script)

    @property
    def status(self) -> int:
        """The command's exit status; -1 when the server gave none."""
        return -1 if self._channel is None else self._channel.exit_status

    @property
    def complete(self) -> bool:
        """Whether status and output are all there, even if the connection is over since."""
        channel = self._channel
        return (
            self.ended()
            and channel is not None
            and channel.exit_status >= 0
            and (not self.transport.over or bool(channel.eof_received))
        )

    def ended(self) -> bool:
        """Return whether all streams and the status have come, or never will."""
        return self._working == 0

    def wait(self, deadline: Deadline) -> bool:
        """Wait until the command has ended, or the connection; return False when the deadline, or a flood, came first.

        Raises the machine's failure.
        """
        try:
            self._watch.wait_for(lambda: self.ended() or self.transport.over or bool(self.flooded), deadline)
        except BaseException:
            # Nobody reads at the other end any more: even closing the channel could wait for ever.
            self.transport.give_up("the test went on without waiting for the guest")
            self._settle()
            raise
        if self.complete or not (self.ended() or self.transport.over):
            return self.ended()
        # What ends the connection ends its channels a moment before it is known to be over, and why.
        self._watch.wait_only(self._explained, Deadline(_CLOSE_PATIENCE))
        return True

    def _explained(self) -> bool:
        if self.transport.over:
            return self.ended()
        if self._channel is None:
            return isinstance(self.trouble, paramiko.ChannelException)
        return self.failure is not None or self.transport.closed_by_server(self._channel)

    def kill(self) -> bool:
        """Kill a command that did not end in time; return whether it has ended."""
        # The commands of a connection are the children of one process, which does not say which one is ours.
        if self._channel is not None and self.transport.channels == 1:
            killer = Session(self.transport, _KILL, watch=self._watch)
            if not self._watch.wait_only(killer.ended, Deadline(_KILL_PATIENCE)):
                killer.stop()
            elif self._settle():
                return True
        self.stop()
        return False

    def stop(self) -> None:
        """Let a command that did not end in time see its streams closed."""
        if self._channel is None:
            self.transport.give_up("the guest's SSH server did not answer")
        else:
            self._begin(self._channel.close)
            if not self._settle():
                self.transport.give_up("the guest did not read what was sent to it")
        self._settle()

    def _settle(self, seconds: float = _CLOSE_PATIENCE) -> bool:
        return self._watch.wait_only(self.ended, Deadline(seconds))

    # In threads

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            except Exception as error:  # noqa: BLE001  # what a server says can lead paramiko to anything
                self.trouble = error
            finally:
                with self._watch:
                    self._working -= 1
                    self._watch.notify()

        with self._watch:
            self._working += 1
        threading.Thread(target=run, daemon=True).start()

    def _converse(self, script: bytes) -> None:
        channel = self._channel = self.transport.open_session()
        self.opened = True
        command, rest = self._fitted(script)
        channel.exec_command(command)
        self._begin(self._read_errors, channel)
        if rest or self._produce is not None:
            self._begin(self._feed, channel, rest)
        else:
            channel.shutdown_write()

        def read(size: int) -> bytes:
            try:
                return channel.recv(size)
            except _BROKEN:
                return b""

        self._guarded(lambda: self._consume(read))
        if self.failure is not None:
            channel.close()
        while read(_PIECE):
            pass
        channel.recv_exit_status()

    def _fitted(self, script: bytes) -> tuple[bytes, bytes]:
        """Return the command for the server, and what goes to its stdin first."""
        dropbear = _DROPBEAR.search(self.transport.remote_version)
        longest = _LONGEST_ELSEWHERE if dropbear is None else 8000 if int(dropbear[1] or 0) > 2015 else 1000
        if len(script) <= longest:
            return script, b""
        # Byte for byte, because what comes after it belongs to the script.
        words = shlex.join(["dd", "bs=1", f"count={len(script)}"])
        return f'exec sh -c "$({words} 2>/dev/null)"'.encode(), script

    def _keep(self, read: Read) -> None:
        while data := read(_PIECE):
            self._collect(self.out, data, "stdout")

    def _read_errors(self, channel: paramiko.Channel) -> None:
        while data := channel.recv_stderr(_PIECE):
            self._collect(self.err, data, "stderr")

    def _collect(self, output: bytearray, data: bytes, stream: str) -> None:
        if len(output) < OUTPUT_LIMIT:
            output += data
        elif not self.flooded:
            with self._watch:
                self.flooded = stream
                self._watch.notify()

    def _feed(self, channel: paramiko.Channel, first: bytes) -> None:
        def send(data: bytes) -> None:
            try:
                channel.sendall(data)
            except _BROKEN as error:
                raise Unread from error

        def everything() -> None:
            send(first)
            if self._produce is not None:
                self._produce(send)

        self._guarded(everything)
        if self.failure is not None:
            channel.close()
            return
        with contextlib.suppress(*_BROKEN):
            channel.shutdown_write()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do the caller's part, whose mistakes are not the connection's."""
        try:
            work()
        except Unread:
            return
        except Exception as error:  # noqa: BLE001  # raised again by who waits for the end
            self.failure = self.failure or error
