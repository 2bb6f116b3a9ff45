"""Everything that can go wrong, as one tree.

::

    KVMError
    ├── SpecError            the declaration is wrong (also a ValueError)
    ├── HostError            this host cannot: a skip, or a failure under --kvm-strict
    │   ├── QEMUNotFound
    │   ├── AcceleratorUnavailable
    │   ├── ImageUnavailable
    │   └── BudgetExceeded   a machine takes more than the machines of this host may, together or at this moment
    └── MachineError         the machine or the guest misbehaved
        ├── LaunchError      QEMU did not start
        │   └── DriveInUse   somebody else has a writable drive open
        ├── QEMUExited       QEMU ended while it was still needed
        ├── QMPError         QEMU refused a QMP command
        ├── CommandError     a guest command returned an unexpected status
        ├── CasesFailed      cases of a test program in the guest failed, or do not agree with its plan
        ├── TooMuchOutput    a guest command wrote more than is kept
        ├── ShellLost        the guest's shell went away under a command
        ├── LoginFailed      the guest did not let a user in at its console
        ├── SSHError         an SSH connection could not be made, or was lost
        ├── AgentError       the guest agent refused a command, or went away under it
        ├── TransferError    the guest did not take, or give, a file
        ├── NegotiationError a virtio device and its driver have not agreed on what they should have
        ├── HotplugError     the guest did not take a device, or does not give it back
        ├── DriveFailed      a drive's file could not be read or written: no room on the host, say
        ├── TrayLocked       the guest does not let the medium of a drive go
        ├── QemuImgError     qemu-img does not do what was asked with a disk image
        ├── Verdict          the guest misbehaved
        │   ├── GuestPanic   it cannot go on: a panic, or a shutdown that nobody asked for
        │   └── KernelSplat  its kernel complained: a WARNING, an oops, KASAN …
        ├── NotSeen          what a test said would happen did not
        ├── WaitTimeout      a wait ran into its deadline (also a TimeoutError)
        │   ├── BootTimeout
        │   ├── BalloonTimeout  the guest did not give, or take back, so much memory
        │   ├── ConsoleTimeout
        │   └── CommandTimeout
        └── TeardownError    something would have survived the test

An error's data are attributes; its text reads: subject, what happened, against which limit; evidence; one hint.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from textwrap import indent

from pytest_kvm.visible import visible


class KVMError(Exception):
    """Base of every error that this package raises on purpose.

    Its text may quote a guest, QEMU or a server: nothing in it does anything to a terminal. What they said is in the
    attributes, as it came.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


class SpecError(KVMError, ValueError):
    """The declaration of a machine is wrong.

    ``keyword`` is the field it is about (None if it is about several), ``value`` what was given.
    """

    def __init__(self, message: str, *, keyword: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.keyword = keyword
        self.value = value


class HostError(KVMError):
    """This host cannot do what was asked: ``trouble`` says why, ``hint`` what would change that."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{indent(hint, '  ')}" if hint else message)
        self.trouble = message
        self.hint = hint


class QEMUNotFound(HostError):
    """No usable QEMU system emulator."""


class AcceleratorUnavailable(HostError):
    """The accelerator that was demanded does not work here."""


class ImageUnavailable(HostError):
    """An image cannot be had here, now."""


class BudgetExceeded(HostError):
    """Machines do not fit into what the machines of this host may take, and waiting would not help or is not allowed.

    ``memory`` (in bytes), ``vcpus`` and ``machines`` are what was asked for, ``holders`` says who has shares now.
    """

    def __init__(
        self, message: str, *, hint: str, memory: int, vcpus: int, machines: int, holders: Sequence[str]
    ) -> None:
        super().__init__(message, hint=hint)
        self.memory = memory
        self.vcpus = vcpus
        self.machines = machines
        self.holders = tuple(holders)


class MachineError(KVMError):
    """The machine or the guest in it misbehaved."""


class LaunchError(MachineError):
    """QEMU did not come up.

    ``returncode`` is its exit status (negative: the signal; None: it was still running), ``stderr`` what it said,
    ``command`` its command line.
    """

    def __init__(
        self, message: str, *, returncode: int | None = None, stderr: str = "", command: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr = stderr
        self.command = tuple(command)


class DriveInUse(LaunchError):
    """A drive that would be written is open in another machine."""


class QEMUExited(MachineError):
    """QEMU ended while something was still waiting for it; attributes as in LaunchError."""

    def __init__(self, message: str, *, returncode: int | None = None, stderr: str = "") -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr = stderr


class QMPError(MachineError):
    """QEMU refused a QMP command; ``error_class`` is QEMU's, such as ``GenericError`` or ``DeviceNotFound``."""

    def __init__(self, message: str, *, command: str, error_class: str) -> None:
        super().__init__(message)
        self.command = command
        self.error_class = error_class


class CommandError(MachineError):
    """A guest command returned a status that was not expected.

    ``command``, ``returncode``, ``stdout``, ``stderr`` are those of the result.
    """

    def __init__(
        self, message: str, *, command: str, returncode: int, stdout: str | bytes, stderr: str | bytes
    ) -> None:
        super().__init__(message)
        self.command = command
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class CasesFailed(MachineError):
    """Cases of a test program in the guest failed, or what it said does not agree with its plan.

    ``failed`` are the names of the cases that failed, crashed or did not run, ``problems`` what does not agree, a line
    each; ``vm.run_ktap(…, check=False)`` returns all that is known.
    """

    def __init__(self, message: str, *, failed: Sequence[str], problems: Sequence[str]) -> None:
        super().__init__(message)
        self.failed = failed
        self.problems = problems


class TooMuchOutput(MachineError):
    """A guest command wrote more than is kept of it; ``command`` is that command, ``limit`` the most, in bytes."""

    def __init__(self, message: str, *, command: str, limit: int) -> None:
        super().__init__(message)
        self.command = command
        self.limit = limit


class ShellLost(MachineError):
    """The guest's shell went away while a command was running in it; ``command`` is that command."""

    def __init__(self, message: str, *, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class LoginFailed(MachineError):
    """The guest did not let a user in at its console; ``user`` is who, ``said`` what the guest said (may be empty)."""

    def __init__(self, message: str, *, user: str, said: str = "") -> None:
        super().__init__(message)
        self.user = user
        self.said = said


class SSHError(MachineError):
    """An SSH connection could not be made, or was lost."""


class AgentError(MachineError):
    """The QEMU guest agent refused a command, or went away under it.

    ``error_class`` is QEMU's, such as ``GenericError`` or ``CommandNotFound``; "" when there was no answer.
    """

    def __init__(self, message: str, *, command: str, error_class: str = "") -> None:
        super().__init__(message)
        self.command = command
        self.error_class = error_class


class TransferError(MachineError):
    """The guest did not take, or give, a file; ``stderr`` is what it said, ``remote`` the path there."""

    def __init__(self, message: str, *, remote: str, stderr: str) -> None:
        super().__init__(message)
        self.remote = remote
        self.stderr = stderr


class WaitTimeout(MachineError, TimeoutError):
    """A wait ran into its deadline; ``timeout`` is the limit in seconds."""

    def __init__(self, message: str, *, timeout: float) -> None:
        super().__init__(message)
        self.timeout = timeout


class BootTimeout(WaitTimeout):
    """The machine did not become ready in time."""


class BalloonTimeout(WaitTimeout):
    """The guest's balloon did not come to the size that was asked for in time.

    ``asked`` is the memory that the guest was to be left with, ``actual`` what it has, in bytes.
    """

    def __init__(self, message: str, *, timeout: float, asked: int, actual: int) -> None:
        super().__init__(message, timeout=timeout)
        self.asked = asked
        self.actual = actual


class ConsoleTimeout(WaitTimeout):
    """The serial console did not show what was expected in time."""


class CommandTimeout(WaitTimeout):
    """A guest command did not end in time; ``stdout`` and ``stderr`` are what it had written until then."""

    def __init__(self, message: str, *, timeout: float, command: str, stdout: str | bytes, stderr: str | bytes) -> None:
        super().__init__(message, timeout=timeout)
        self.command = command
        self.stdout = stdout
        self.stderr = stderr


class TeardownError(MachineError):
    """Something of a machine would have survived the test."""


class NegotiationError(MachineError):
    """What a virtio device and its driver have agreed on is not what it should be, or guest and QEMU tell it otherwise.

    ``device`` is its id, ``problems`` what is wrong, a line each.
    """

    def __init__(self, message: str, *, device: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.device = device
        self.problems = tuple(problems)


class HotplugError(MachineError):
    """The guest did not take a device that was plugged in, or does not give one back; ``device`` is its id."""

    def __init__(self, message: str, *, device: str) -> None:
        super().__init__(message)
        self.device = device


class DriveFailed(MachineError):
    """QEMU could not read or write a drive's file, and stopped the guest.

    ``drive`` is its id, ``reason`` what the operating system said, ``nospace`` whether the host's disk is full.
    """

    def __init__(self, message: str, *, drive: str, reason: str, nospace: bool) -> None:
        super().__init__(message)
        self.drive = drive
        self.reason = reason
        self.nospace = nospace


class TrayLocked(MachineError):
    """The guest has locked the tray of a CD-ROM drive: it has the medium mounted or open; ``drive`` is its id."""

    def __init__(self, message: str, *, drive: str) -> None:
        super().__init__(message)
        self.drive = drive


class QemuImgError(MachineError):
    """qemu-img does not do what was asked with a disk image.

    ``returncode`` is its exit status (negative: the signal; None: it was not started, as it could not have succeeded),
    ``stderr`` what it said, ``command`` its command line; ``nospace`` is whether the host's disk is full, ``in_use``
    whether a running machine, or another process, has the image open.
    """

    def __init__(self, message: str, *, returncode: int | None, stderr: str = "", command: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr = stderr
        self.command = tuple(command)
        self.nospace = os.strerror(errno.ENOSPC) in stderr
        # block/file-posix.c, raw_check_lock_bytes and raw_apply_lock_bytes.
        self.in_use = _LOCK.search(stderr) is not None


_LOCK = re.compile(r'Failed to (?:get (?:shared )?"[\w ]+" lock|lock byte \d+)')


class Verdict(MachineError):
    """The guest misbehaved: ``kind`` is in short how (``panic``, ``shutdown``, ``WARNING``), ``title`` what happened.

    ``trace`` is what the guest printed about it, as it came, "" if nothing. The error's text has it, too, with the
    lines of source where there is debug information of the kernel: the ``evidence``, made when somebody looks.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "panic",
        title: str = "",
        trace: str = "",
        evidence: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.title = title
        self.trace = trace
        self._evidence = evidence

    def __str__(self) -> str:
        return super().__str__() + (visible(self._evidence()) if self._evidence is not None else "")


class GuestPanic(Verdict):
    """The guest cannot go on.

    Its kernel panicked (``kind`` is ``panic``), its user space ended in an emergency shell (``emergency shell``), its
    firmware found nothing to boot (``firmware``), it switched the machine off (``shutdown``) or rebooted it
    (``reboot``) without being asked, or its watchdog fired (``watchdog``).
    """


class KernelSplat(Verdict):
    """The guest's kernel complained, and went on: a WARNING, an oops, a report of KASAN or lockdep …"""


class NotSeen(MachineError):
    """What the test said that the machine would do did not happen."""
