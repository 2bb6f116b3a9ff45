"""Recognisers: the guest does not come up: firmware, boot loader, initramfs, init."""

from __future__ import annotations

import re

from pytest_kvm.guest.recognisers.recogniser import Recogniser, Source

STARTUP = (
    Recogniser(
        kind="firmware",
        name="SeaBIOS",
        cues=(b"ootable",),
        # And the boot sector that mkfs.fat writes. SeaBIOS that will try again says so behind it.
        begins=re.compile(r"No bootable device\.?\Z|This is not a bootable disk\."),
        title="firmware: No bootable device",
        span=1,
        fatal=True,
        source=Source.ANYONE,
    ),
    Recogniser(
        kind="firmware",
        name="OVMF",
        cues=(b"ootable", b"EFI Interactive Shell"),
        # Its shell is what it starts when there is nothing else.
        begins=re.compile(
            r"BdsDxe: (?P<what>No bootable option or device was found)|(?P<what2>UEFI Interactive Shell)"
        ),
        title="firmware: {what}",
        ends=re.compile(r"Shell>|Boot Manager Menu"),
        span=8,
        fatal=True,
        source=Source.ANYONE,
    ),
    Recogniser(
        kind="firmware",
        name="GRUB",
        cues=(b"grub rescue>",),
        begins=re.compile(r"grub rescue>"),
        title="firmware: GRUB rescue mode",
        span=1,
        fatal=True,
        source=Source.ANYONE,
        unfinished=True,
    ),
    Recogniser(
        kind="emergency shell",
        name="initramfs trouble",
        cues=(b"ropping to a shell", b" as root file system", b"emergency "),
        # initramfs-tools; dracut; mkinitcpio; Alpine's mkinitfs.
        begins=re.compile(
            r"(?P<what>ALERT! .*?)\.?\s+Dropping to a shell!|(?P<what2>Failed to mount \S+ as root file system)\.|"
            r"(?:dracut: )?Entering emergency mode\. Exit the shell|You are now being dropped into an emergency shell|"
            r"initramfs emergency recovery shell launched"
        ),
        title="emergency shell[: {what}]",
        ends=re.compile(r"\A(?:\(initramfs\)|\S*:/#|sh-[\d.]+#|~ #|\[rootfs )"),
        span=16,
        fatal=True,
        source=Source.ANYONE,
    ),
    Recogniser(
        kind="emergency shell",
        name="initramfs shell",
        cues=(b"(initramfs)",),
        begins=re.compile(r"\(initramfs\)"),
        title="emergency shell: initramfs",
        span=1,
        fatal=True,
        source=Source.ANYONE,
        unfinished=True,
        joins=frozenset({"initramfs trouble"}),
    ),
    Recogniser(
        kind="emergency shell",
        name="systemd",
        cues=(b"emergency mode",),
        begins=re.compile(r"You are in emergency mode\."),
        title="emergency shell: systemd",
        ends=re.compile(r"Press Enter|Give root password|press Control-D|root@"),
        span=16,
        fatal=True,
        source=Source.ANYONE,
    ),
    Recogniser(
        kind="failed init",
        name="frozen init",
        cues=(b"reezing execution",),
        begins=re.compile(r"(?:systemd\[1\]|init): Freezing execution"),
        title="failed init: systemd has stopped",
        span=1,
        fatal=True,
        source=Source.ANYONE,
    ),
)
