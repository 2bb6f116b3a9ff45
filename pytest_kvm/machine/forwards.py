"""Which ports of the host lead into the guest: chosen by the kernel, asked back from QEMU."""

from __future__ import annotations

import re

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.qemu.qmp import QMP
from pytest_kvm.spec.forward import parse_hostfwd

# A line of HMP's "info usernet": TCP[HOST_FORWARD]  12       127.0.0.1 40519       10.0.2.15    22     0     0
_LINE = re.compile(
    r"(?P<protocol>TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+(?P<host>\S+)\s+(?P<port>\d+)\s+(?P<guest>\S+)\s+(?P<guest_port>\d+)"
)


class Forwards:
    """The forwards of one run of QEMU."""

    def __init__(self, *, name: str, qmp: QMP, nic: str | None) -> None:
        self._name = name
        self._qmp = qmp
        self._nic = nic
        self._found: dict[tuple[str, int], tuple[str, int]] | None = None

    def find(self, guest_port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Return the host's address and port that lead to the guest's port; raises SpecError when none does."""
        found = self._ask()
        if (protocol, guest_port) not in found:
            listed = ", ".join(f"{port}/{kind}" for kind, port in sorted(found)) or "none"
            raise SpecError(
                f"VM {self._name!r}: guest port {guest_port}/{protocol} is not forwarded (forwarded: {listed}); "
                f"declare vm(hostfwd=[{guest_port}])",
                keyword="hostfwd",
                value=guest_port,
            )
        return found[protocol, guest_port]

    def add(self, guest_port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Forward a port of the running guest, unless it is; raises SpecError without a user network."""
        if (protocol, guest_port) in self._ask():
            return self.find(guest_port, protocol)
        if self._nic is None:
            raise SpecError(
                f"VM {self._name!r} has no network: its port {guest_port} cannot be forwarded", keyword="nics"
            )
        forward = parse_hostfwd(guest_port if protocol == "tcp" else f"{protocol}::-:{guest_port}")
        refusal = self._qmp.hmp(f"hostfwd_add {self._nic} {forward}").strip()
        if refusal:
            raise MachineError(f"VM {self._name!r}: cannot forward guest port {guest_port}/{protocol}: {refusal}")
        self._found = None
        return self.find(guest_port, protocol)

    def _ask(self) -> dict[tuple[str, int], tuple[str, int]]:
        if self._found is None:
            self._found = parse_usernet(self._qmp.hmp("info usernet")) if self._nic else {}
        return self._found


def parse_usernet(text: str) -> dict[tuple[str, int], tuple[str, int]]:
    """Return (protocol, guest port) → (host address, host port) from HMP's ``info usernet``."""
    found = {}
    for match in _LINE.finditer(text):
        host = "127.0.0.1" if match["host"] in ("*", "0.0.0.0") else match["host"]
        found[match["protocol"].lower(), int(match["guest_port"])] = (host, int(match["port"]))
    return found
