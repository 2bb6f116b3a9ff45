"""Recognisers: the guest does not come up: firmware, boot loader, initramfs, init."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source

STARTUP = (
    Recogniser(
        kind="firmware",
        name="firmware",
        cues=(b"ootable", b"EFI Interactive Shell"),
        # SeaBIOS; OVMF; its shell, which it starts when there is nothing else; mkfs.fat's boot sector.
        begins=re.compile(
            r"(?P<what>No bootable device(?=\.?\Z)|BdsDxe: No bootable option or device was found|"
            r"UEFI Interactive Shell|This is not a bootable disk)"
        ),
        title="{what}",
        span=4,
        fatal=True,
        source=Source.ANYONE,
    ),
    Recogniser(
        kind="firmware",
        name="GRUB",
        cues=(b"grub rescue> ",),
        begins=re.compile(r"grub rescue>"),
        title="GRUB: rescue mode",
        span=1,
        fatal=True,
        source=Source.ANYONE,
        unfinished=True,
    ),
    Recogniser(
        kind="emergency shell",
        name="initramfs trouble",
        cues=(b"ropping to a shell", b"emergency", b" as root file system"),
        # initramfs-tools; dracut; mkinitcpio; Alpine's mkinitfs; systemd.
        begins=re.compile(
            r"(?P<what>ALERT! .*?)(?:\.? *Dropping to a shell!?)|Dropping to a shell!|"
            r"(?:\S*dracut\S*: )?Entering emergency mode\.|"
            r"Failed to mount \S+ as root file system|"
            r"You are now being dropped into an emergency shell|initramfs emergency recovery shell launched|"
            r"You are in emergency mode"
        ),
        title="emergency shell[: {what}]",
        span=12,
        fatal=True,
        source=Source.ANYONE,
        joins=frozenset({"initramfs shell", "initramfs trouble"}),
    ),
    Recogniser(
        kind="emergency shell",
        name="initramfs shell",
        cues=(b"(initramfs) ",),
        begins=re.compile(r"\(initramfs\)"),
        title="emergency shell: initramfs",
        span=1,
        fatal=True,
        source=Source.ANYONE,
        unfinished=True,
        joins=frozenset({"initramfs trouble"}),
    ),
    Recogniser(
        kind="failed init",
        name="frozen init",
        cues=(b"reezing execution",),
        begins=re.compile(r"systemd\[1\]: Freezing execution|\[!!!!!!\] .*, freezing\."),
        title="systemd: Freezing execution",
        span=1,
        fatal=True,
        source=Source.ANYONE,
    ),
)
