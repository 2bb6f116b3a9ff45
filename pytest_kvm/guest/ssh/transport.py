"""An SSH transport that remembers how a connection and a command ended, which paramiko's throws away.

It imports paramiko, and is to be imported when a connection is made.
"""

from __future__ import annotations

import logging
import signal
import threading

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)

from pytest_kvm.guest.result import decoded, shorten
from pytest_kvm.guest.ssh.packets import GuestPacketizer
from pytest_kvm.visible import visible
from pytest_kvm.waiting import Watch

# The handshake's own limit in paramiko, 15 s, is not enough for an emulated guest that makes its host keys first.
_HANDSHAKE_PATIENCE = 60.0


def _note_signal(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Take the message "killed by a signal" for a status, as shells do; paramiko passes it over and reports -1."""
    if message.get_text() == "exit-signal":
        message.get_boolean()
        # "SIG@openssh.com" is said where it has no name in SSH.
        number = signal.Signals.__members__.get(f"SIG{decoded(message.get_binary())}", 0)
        channel.exit_status = 128 + number
        channel.status_event.set()
        return
    message.rewind()
    message.get_int()  # the channel's number
    channel._handle_request(message)  # type: ignore[attr-defined]


def _take(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Take data; paramiko takes also what the server may not send before earlier data have been read."""
    _check_window(channel, message)
    channel._feed(message)  # type: ignore[attr-defined]


def _take_extended(channel: paramiko.Channel, message: paramiko.Message) -> None:
    _check_window(channel, message)
    channel._feed_extended(message)  # type: ignore[attr-defined]


def _check_window(channel: paramiko.Channel, message: paramiko.Message) -> None:
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    if unread + len(message.asbytes()) > 2 * channel.in_window_size:
        raise paramiko.SSHException("the server sent more than it was allowed to")


def _note_close(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Remember that the server, not the end of the connection, has closed a channel."""
    channel._handle_close(message)  # type: ignore[attr-defined]
    if isinstance(channel.transport, GuestTransport):
        channel.transport.note_close(channel)


class GuestTransport(paramiko.Transport):
    """paramiko's transport, which notifies ``watch`` when the connection is over, for whatever reason.

    ``goodbye`` is what the server said when it ended the connection, if it did.
    """

    _channel_handler_table = {  # noqa: RUF012  # as in paramiko
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _note_signal,
        MSG_CHANNEL_CLOSE: _note_close,
        MSG_CHANNEL_DATA: _take,
        MSG_CHANNEL_EXTENDED_DATA: _take_extended,
    }

    def __init__(self, sock: paramiko.transport._SocketLike, *, watch: Watch, **options: object) -> None:
        # paramiko 4 and 5 give different ones
        super().__init__(sock, packetizer_class=GuestPacketizer, **options)  # type: ignore[arg-type]
        self.handshake_timeout = _HANDSHAKE_PATIENCE
        self.over = False
        self.goodbye = ""
        self._watch = watch
        self._reason = ""
        self._closed_by_server: set[int] = set()
        self._order = threading.Lock()
        self._closed_for_server: set[int] = set()

    def run(self) -> None:
        """Do the connection's work, in a thread, until it is over."""
        try:
            super().run()
        finally:
            self._reason = self._reason or explain(self.saved_exception)
            with self._watch:
                self.over = True
                self._watch.notify()

    def give_up(self, reason: str) -> None:
        """Close the connection, for a reason that its users are told; returns at once."""
        self._reason = self._reason or reason
        self.close()

    def reason(self, error: BaseException | None = None) -> str:
        """Return why the connection is over; ``error`` is what its user met."""
        return self._reason or explain(error)

    @property
    def channels(self) -> int:
        """How many commands run over the connection, and whatever else the user does with it."""
        return len(self._channels)  # type: ignore[attr-defined]

    def note_close(self, channel: paramiko.Channel) -> None:
        """The server has closed a channel. In the connection's thread."""
        with self._watch:
            self._closed_by_server.add(channel.chanid)
            self._watch.notify()

    def closed_by_server(self, channel: paramiko.Channel) -> bool:
        """Return whether the server has closed a channel."""
        return channel.chanid in self._closed_by_server

    # paramiko decides what to send before it waits for its turn. When a command ends just then, what it is sent, or the
    # end of that, may come after the close of its channel: a mistake for which servers end the whole connection.

    def _send_user_message(self, message: paramiko.Message) -> None:
        data = message.asbytes()
        kind = data[0]
        of_channel = MSG_CHANNEL_WINDOW_ADJUST <= kind <= MSG_CHANNEL_REQUEST
        number = int.from_bytes(data[1:5], "big")
        with self._order:
            if of_channel and number in self._closed_for_server:
                return
            if kind == MSG_CHANNEL_CLOSE:
                self._closed_for_server.add(number)
            super()._send_user_message(message)  # type: ignore[misc]

    def _parse_channel_open_success(self, message: paramiko.Message) -> None:
        message.get_int()
        # The server may use a number again. Not in order: who waits for that may be waiting for this thread.
        self._closed_for_server.discard(message.get_int())
        message.rewind()
        super()._parse_channel_open_success(message)  # type: ignore[misc]

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.goodbye = f"the server said {shorten(decoded(message.get_binary()))}"
        self._reason = self._reason or self.goodbye

    def _log(self, level: int, message: object, *arguments: object) -> None:
        # What goes wrong is raised, or met again on the next try: a failed test's log is not to be full of tracebacks
        # from the tries before the guest had booted. What the server said may be among it.
        lines = message if isinstance(message, list) else [str(message) % arguments if arguments else message]
        super()._log(min(level, logging.DEBUG), [visible(str(line)) for line in lines])  # type: ignore[misc]


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (EOFError, "the guest closed the connection"),
    (ConnectionResetError, "the guest reset the connection"),
    (ConnectionRefusedError, "connection refused"),
)


def explain(error: BaseException | None) -> str:
    """Return in words what paramiko met."""
    if error is None:
        return "the connection was closed"
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, paramiko.ChannelException):
        return f"it opens no further session on this connection ({error.text})"
    if isinstance(error, (paramiko.SSHException, OSError)):
        return str(error) or type(error).__name__
    return f"it says what makes no sense ({type(error).__name__}: {error})"
