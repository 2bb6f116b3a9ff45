"""``command.txt``: the command line that starts the machine again, by hand."""

from __future__ import annotations

from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.machine.run import shown
from pytest_kvm.qemu.byhand import by_hand, differences
from pytest_kvm.qemu.cmdline import build


def command_text(evidence: Evidence) -> str:
    """Return a shell script, which is the command line that a person can run, and in comments what is different in it.

    The command line that was run stands behind it, as a comment.
    """
    originals = evidence.originals()
    remarks = [
        f"VM {evidence.name!r}. 'sh command.txt' starts it once more. QEMU was {evidence.binary.version_text}.",
        _how(evidence),
        *differences(evidence.plan, originals),
    ]
    command = build(by_hand(evidence.plan, originals), evidence.binary)
    original = "The command line in the test, with descriptors, sockets and disks that are gone:"
    return f"{_comment(remarks)}{shown(command)}\n\n{_comment([original, shown(list(evidence.command))])}"


def _how(evidence: Evidence) -> str:
    started = evidence.started
    if started is None:
        return "It did not come up."
    how = {"boot": "was booted", "clone": "was a clone"}.get(started.kind, started.kind)
    reason = f" ({started.reason})" if started.reason else ""
    return f"It {how}{reason}, and ready after {started.seconds:.2f} s."


def _comment(remarks: list[str]) -> str:
    return "".join(f"# {line}\n" for remark in remarks for line in remark.split("\n"))
