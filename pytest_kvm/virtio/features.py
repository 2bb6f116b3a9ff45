"""The feature bits of virtio 1.3 by their names, and the device status field.

What the specification's chapter 6 calls VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX begins with VIRTIO_RING_F_ here,
as in Linux and QEMU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Chapter 6, "Reserved Feature Bits", and those of the legacy interface (6.3).
COMMON: Mapping[int, str] = {
    24: "VIRTIO_F_NOTIFY_ON_EMPTY",
    27: "VIRTIO_F_ANY_LAYOUT",
    28: "VIRTIO_RING_F_INDIRECT_DESC",
    29: "VIRTIO_RING_F_EVENT_IDX",
    30: "VIRTIO_F_BAD_FEATURE",
    32: "VIRTIO_F_VERSION_1",
    33: "VIRTIO_F_ACCESS_PLATFORM",
    34: "VIRTIO_F_RING_PACKED",
    35: "VIRTIO_F_IN_ORDER",
    36: "VIRTIO_F_ORDER_PLATFORM",
    37: "VIRTIO_F_SR_IOV",
    38: "VIRTIO_F_NOTIFICATION_DATA",
    39: "VIRTIO_F_NOTIF_CONFIG_DATA",
    40: "VIRTIO_F_RING_RESET",
    41: "VIRTIO_F_ADMIN_VQ",
}
# The prefix of each type's names, and its bits: the sections of chapter 5 that the type's numbers name.
_OWN: Mapping[str, tuple[str, Mapping[int, str]]] = {
    # 5.1.3
    "net": (
        "VIRTIO_NET_F_",
        {
            0: "CSUM",
            1: "GUEST_CSUM",
            2: "CTRL_GUEST_OFFLOADS",
            3: "MTU",
            5: "MAC",
            6: "GSO",
            7: "GUEST_TSO4",
            8: "GUEST_TSO6",
            9: "GUEST_ECN",
            10: "GUEST_UFO",
            11: "HOST_TSO4",
            12: "HOST_TSO6",
            13: "HOST_ECN",
            14: "HOST_UFO",
            15: "MRG_RXBUF",
            16: "STATUS",
            17: "CTRL_VQ",
            18: "CTRL_RX",
            19: "CTRL_VLAN",
            20: "CTRL_RX_EXTRA",
            21: "GUEST_ANNOUNCE",
            22: "MQ",
            23: "CTRL_MAC_ADDR",
            51: "HASH_TUNNEL",
            52: "VQ_NOTF_COAL",
            53: "NOTF_COAL",
            54: "GUEST_USO4",
            55: "GUEST_USO6",
            56: "HOST_USO",
            57: "HASH_REPORT",
            59: "GUEST_HDRLEN",
            60: "RSS",
            61: "RSC_EXT",
            62: "STANDBY",
            63: "SPEED_DUPLEX",
        },
    ),
    # 5.2.3
    "blk": (
        "VIRTIO_BLK_F_",
        {
            0: "BARRIER",
            1: "SIZE_MAX",
            2: "SEG_MAX",
            4: "GEOMETRY",
            5: "RO",
            6: "BLK_SIZE",
            7: "SCSI",
            9: "FLUSH",
            10: "TOPOLOGY",
            11: "CONFIG_WCE",
            12: "MQ",
            13: "DISCARD",
            14: "WRITE_ZEROES",
            15: "LIFETIME",
            16: "SECURE_ERASE",
            17: "ZONED",
        },
    ),
    # 5.3.3
    "serial": ("VIRTIO_CONSOLE_F_", {0: "SIZE", 1: "MULTIPORT", 2: "EMERG_WRITE"}),
    # 5.4.3: none
    "rng": ("VIRTIO_RNG_F_", {}),
    # 5.5.3
    "balloon": (
        "VIRTIO_BALLOON_F_",
        {
            0: "MUST_TELL_HOST",
            1: "STATS_VQ",
            2: "DEFLATE_ON_OOM",
            3: "FREE_PAGE_HINT",
            4: "PAGE_POISON",
            5: "PAGE_REPORTING",
        },
    ),
    # 5.6.3
    "scsi": ("VIRTIO_SCSI_F_", {0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI"}),
    # Linux, include/uapi/linux/virtio_9p.h: the specification has no section on it.
    "9p": ("VIRTIO_9P_", {0: "MOUNT_TAG"}),
    # 5.7.3
    "gpu": (
        "VIRTIO_GPU_F_",
        {0: "VIRGL", 1: "EDID", 2: "RESOURCE_UUID", 3: "RESOURCE_BLOB", 4: "CONTEXT_INIT"},
    ),
    # 5.8.3: none
    "input": ("VIRTIO_INPUT_F_", {}),
    # 5.9.3
    "crypto": (
        "VIRTIO_CRYPTO_F_",
        {
            0: "REVISION_1",
            1: "CIPHER_STATELESS_MODE",
            2: "HASH_STATELESS_MODE",
            3: "MAC_STATELESS_MODE",
            4: "AEAD_STATELESS_MODE",
            5: "AKCIPHER_STATELESS_MODE",
        },
    ),
    # 5.10.3
    "vsock": ("VIRTIO_VSOCK_F_", {0: "STREAM", 1: "SEQPACKET", 2: "NO_IMPLIED_STREAM"}),
    # 5.11.3
    "fs": ("VIRTIO_FS_F_", {0: "NOTIFICATION"}),
    # 5.12.3: none
    "rpmb": ("VIRTIO_RPMB_F_", {}),
    # 5.13.3
    "iommu": (
        "VIRTIO_IOMMU_F_",
        {
            0: "INPUT_RANGE",
            1: "DOMAIN_RANGE",
            2: "MAP_UNMAP",
            3: "BYPASS",
            4: "PROBE",
            5: "MMIO",
            6: "BYPASS_CONFIG",
        },
    ),
    # 5.14.3
    "sound": ("VIRTIO_SND_F_", {0: "CTLS"}),
    # 5.15.3
    "mem": ("VIRTIO_MEM_F_", {0: "ACPI_PXM", 1: "UNPLUGGED_INACCESSIBLE"}),
    # 5.16.3
    "i2c": ("VIRTIO_I2C_F_", {0: "ZERO_LENGTH_REQUEST"}),
    # 5.17.3
    "scmi": ("VIRTIO_SCMI_F_", {0: "P2A_CHANNELS", 1: "SHARED_MEMORY"}),
    # 5.18.3
    "gpio": ("VIRTIO_GPIO_F_", {0: "IRQ"}),
    # 5.19.3
    "pmem": ("VIRTIO_PMEM_F_", {0: "SHMEM_REGION"}),
}
# Section 2.1.
STATUS: Mapping[int, str] = {
    1: "ACKNOWLEDGE",
    2: "DRIVER",
    4: "DRIVER_OK",
    8: "FEATURES_OK",
    64: "DEVICE_NEEDS_RESET",
    128: "FAILED",
}
# Where QEMU has another name for a bit (hw/virtio/virtio-qmp.c, and Linux's headers that it takes them from).
_OTHERWISE = {
    "VIRTIO_F_IOMMU_PLATFORM": "VIRTIO_F_ACCESS_PLATFORM",
    "VIRTIO_BLK_F_WCE": "VIRTIO_BLK_F_FLUSH",
    "VIRTIO_BALLOON_F_REPORTING": "VIRTIO_BALLOON_F_PAGE_REPORTING",
}
_UNKNOWN = re.compile(r"bit (\d+)")


def names_of_type(type_: str) -> Mapping[int, str]:
    """Return the names of a type's own feature bits and of those that all types have, by the bits."""
    prefix, own = _OWN.get(type_, ("", {}))
    return {**COMMON, **{bit: prefix + name for bit, name in own.items()}}


def feature_names(type_: str, bits: Iterable[int]) -> frozenset[str]:
    """Return the names of feature bits; one that the specification does not have is called ``bit 42``."""
    names = names_of_type(type_)
    return frozenset(names.get(bit, f"bit {bit}") for bit in bits)


def bit_of(type_: str, name: str) -> int:
    """Return the bit of a feature, by any of its names; raises KeyError for one that the type does not have."""
    unknown = _UNKNOWN.fullmatch(name)
    if unknown is not None:
        return int(unknown[1])
    name = _OTHERWISE.get(name, name)
    return {known: bit for bit, known in names_of_type(type_).items()}[name]


def ones(value: int) -> list[int]:
    """Return the bits that are set in a number."""
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def status_names(value: int) -> frozenset[str]:
    """Return the names of what is set in a device's status field."""
    known = {name for bit, name in STATUS.items() if value & bit}
    rest = value & ~sum(STATUS)
    return frozenset(known | ({f"{rest:#x}"} if rest else set()))
