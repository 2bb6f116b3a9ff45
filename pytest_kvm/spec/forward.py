"""Forwarded ports as QEMU's ``hostfwd`` writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from pytest_kvm.spec.wording import Rejected, expected, expected_type, parser_of, shown, whole_number

LOOPBACK = "127.0.0.1"
LARGEST_PORT = 65535
FORWARD_WANTED = "a guest port or QEMU's text such as 'tcp:127.0.0.1:0-:8080' or 'udp::5353-:53'"
FORWARD_TEXT = re.compile(
    r"(?P<protocol>tcp|udp|):(?P<host_address>[^:-]*):(?P<host_port>-?[0-9]{0,18})"
    r"-(?P<guest_address>[^:-]*):(?P<guest_port>-?[0-9]{1,18})"
)


@dataclass(frozen=True)
class Forward:
    """A port of the host that leads to one of the guest.

    ``host_port`` 0 lets the kernel choose; an empty ``guest_address`` is the first one that QEMU's DHCP
    gives.
    """

    protocol: str
    host_address: str
    host_port: int
    guest_address: str
    guest_port: int

    def __str__(self) -> str:
        """Return QEMU's text."""
        return f"{self.protocol}:{self.host_address}:{self.host_port}-{self.guest_address}:{self.guest_port}"


def read_hostfwd(value: int | str) -> Forward:
    """Return the forwarded port; raises Rejected."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise expected_type(FORWARD_WANTED, value)
    if isinstance(value, int):
        return Forward("tcp", LOOPBACK, 0, "", _port("the guest's port", value, 1))
    match = FORWARD_TEXT.fullmatch(value.strip())
    if match is None:
        raise expected(FORWARD_WANTED, value)
    return Forward(
        match["protocol"] or "tcp",
        _address("host", match["host_address"]) or LOOPBACK,
        _port("the host's port", whole_number(match["host_port"]) or 0, 0),
        _address("guest", match["guest_address"]),
        _port("the guest's port", int(match["guest_port"]), 1),
    )


def _port(subject: str, number: int, least: int) -> int:
    if not least <= number <= LARGEST_PORT:
        raise Rejected(f"{subject} must be from {least} to {LARGEST_PORT}, got {number}")
    return number


def _address(side: str, text: str) -> str:
    # libslirp's forwards take IPv4 addresses only, and no names.
    try:
        return text and str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Rejected(f"the {side}'s address must be an IPv4 address, got {shown(text)}") from None


parse_hostfwd = parser_of("hostfwd")(read_hostfwd)
