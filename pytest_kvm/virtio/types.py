"""The device types of virtio 1.3 (chapter 5): their numbers, and what they are called here.

A type is called as QEMU's device is, without ``virtio-``.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPES: Mapping[int, str] = {
    1: "net",  # 5.1
    2: "blk",  # 5.2
    3: "serial",  # 5.3, the console device
    4: "rng",  # 5.4, the entropy device
    5: "balloon",  # 5.5, the traditional memory balloon
    8: "scsi",  # 5.6
    9: "9p",  # chapter 5's table; it has no section
    16: "gpu",  # 5.7
    18: "input",  # 5.8
    19: "vsock",  # 5.10
    20: "crypto",  # 5.9
    23: "iommu",  # 5.13
    24: "mem",  # 5.15
    25: "sound",  # 5.14
    26: "fs",  # 5.11
    27: "pmem",  # 5.19
    28: "rpmb",  # 5.12
    32: "scmi",  # 5.17
    34: "i2c",  # 5.16
    41: "gpio",  # 5.18
}
