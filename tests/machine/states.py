"""Saved machines of a few bytes, as a template's folder has them."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm.guest.shell.lane import SavedLane
from pytest_kvm.machine.state import DEVICES, LOG, RAM, TRANSCRIPT, Guest, write

GUEST = Guest(
    macs=["52:54:00:00:00:01"],
    ports=["control", "0.ctl"],
    lanes=[SavedLane(0, "epoch", 3, "")],
    seconds=2.5,
    about={"image": "tiny", "machine": "q35"},
)


def fill(folder: Path, *, ram: bytes = b"ram") -> None:
    """Write a complete state into an empty folder."""
    for name, content in {RAM: ram, DEVICES: b"devices", TRANSCRIPT: b"login: ", LOG: b"12:00 login: "}.items():
        (folder / name).write_bytes(content)
    write(folder, GUEST)
