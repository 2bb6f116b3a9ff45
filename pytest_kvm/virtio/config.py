"""The configuration space of virtio 1.3's device types: its fields, in order, and when each is there."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

Value = int | str


@dataclass(frozen=True)
class Field:
    """A field: ``format`` as struct's, without the byte order; it is there with the ``feature`` ("": always)."""

    name: str
    format: str
    feature: str = ""


def _fields(text: str, prefix: str) -> tuple[Field, ...]:
    """Return the fields of a table: format, name, and the feature that it is there with."""
    rows = (line.split() for line in text.strip().splitlines())
    return tuple(Field(name, code, prefix + feature[0] if feature else "") for code, name, *feature in rows)


# In sections 5.x.4, "Device configuration layout". What is in a structure there has its name and a dot before its own.
LAYOUTS: Mapping[str, tuple[Field, ...]] = {
    # 5.1.4
    "net": _fields(
        """
        6s mac MAC
        H status STATUS
        H max_virtqueue_pairs MQ
        H mtu MTU
        I speed SPEED_DUPLEX
        B duplex SPEED_DUPLEX
        B rss_max_key_size RSS
        H rss_max_indirection_table_length RSS
        I supported_hash_types RSS
        I supported_tunnel_types HASH_TUNNEL
        """,
        "VIRTIO_NET_F_",
    ),
    # 5.2.4
    "blk": _fields(
        """
        Q capacity
        I size_max SIZE_MAX
        I seg_max SEG_MAX
        H geometry.cylinders GEOMETRY
        B geometry.heads GEOMETRY
        B geometry.sectors GEOMETRY
        I blk_size BLK_SIZE
        B topology.physical_block_exp TOPOLOGY
        B topology.alignment_offset TOPOLOGY
        H topology.min_io_size TOPOLOGY
        I topology.opt_io_size TOPOLOGY
        B writeback CONFIG_WCE
        x -
        H num_queues MQ
        I max_discard_sectors DISCARD
        I max_discard_seg DISCARD
        I discard_sector_alignment DISCARD
        I max_write_zeroes_sectors WRITE_ZEROES
        I max_write_zeroes_seg WRITE_ZEROES
        B write_zeroes_may_unmap WRITE_ZEROES
        3x -
        I max_secure_erase_sectors SECURE_ERASE
        I max_secure_erase_seg SECURE_ERASE
        I secure_erase_sector_alignment SECURE_ERASE
        I zoned.zone_sectors ZONED
        I zoned.max_open_zones ZONED
        I zoned.max_active_zones ZONED
        I zoned.max_append_sectors ZONED
        I zoned.write_granularity ZONED
        B zoned.model ZONED
        3x -
        """,
        "VIRTIO_BLK_F_",
    ),
    # 5.3.4
    "serial": _fields(
        """
        H cols SIZE
        H rows SIZE
        I max_nr_ports MULTIPORT
        I emerg_wr EMERG_WRITE
        """,
        "VIRTIO_CONSOLE_F_",
    ),
    # 5.4.4: none
    "rng": (),
    # 5.5.4
    "balloon": _fields(
        """
        I num_pages
        I actual
        I free_page_hint_cmd_id FREE_PAGE_HINT
        I poison_val PAGE_POISON
        """,
        "VIRTIO_BALLOON_F_",
    ),
    # 5.6.4
    "scsi": _fields(
        """
        I num_queues
        I seg_max
        I max_sectors
        I cmd_per_lun
        I event_info_size
        I sense_size
        I cdb_size
        H max_channel
        H max_target
        I max_lun
        """,
        "VIRTIO_SCSI_F_",
    ),
    # Linux, include/uapi/linux/virtio_9p.h; the tag follows.
    "9p": _fields("H tag_len MOUNT_TAG", "VIRTIO_9P_"),
    # 5.7.4
    "gpu": _fields(
        """
        I events_read
        I events_clear
        I num_scanouts
        I num_capsets
        """,
        "VIRTIO_GPU_F_",
    ),
    # 5.8.4: what is in it depends on what the driver has selected
    "input": _fields(
        """
        B select
        B subsel
        B size
        """,
        "VIRTIO_INPUT_F_",
    ),
    # 5.9.4
    "crypto": _fields(
        """
        I status
        I max_dataqueues
        I crypto_services
        I cipher_algo_l
        I cipher_algo_h
        I hash_algo
        I mac_algo_l
        I mac_algo_h
        I aead_algo
        I max_cipher_key_len
        I max_auth_key_len
        I akcipher_algo
        Q max_size
        """,
        "VIRTIO_CRYPTO_F_",
    ),
    # 5.10.4
    "vsock": _fields("Q guest_cid", "VIRTIO_VSOCK_F_"),
    # 5.11.4
    "fs": _fields(
        """
        36s tag
        I num_request_queues
        I notify_buf_size NOTIFICATION
        """,
        "VIRTIO_FS_F_",
    ),
    # 5.12.4
    "rpmb": _fields(
        """
        B capacity
        B max_wr_cnt
        B max_rd_cnt
        """,
        "VIRTIO_RPMB_F_",
    ),
    # 5.13.4
    "iommu": _fields(
        """
        Q page_size_mask
        Q input_range.start INPUT_RANGE
        Q input_range.end INPUT_RANGE
        I domain_range.start DOMAIN_RANGE
        I domain_range.end DOMAIN_RANGE
        I probe_size PROBE
        B bypass BYPASS_CONFIG
        3x -
        """,
        "VIRTIO_IOMMU_F_",
    ),
    # 5.14.4
    "sound": _fields(
        """
        I jacks
        I streams
        I chmaps
        I controls CTLS
        """,
        "VIRTIO_SND_F_",
    ),
    # 5.15.4
    "mem": _fields(
        """
        Q block_size
        H node_id ACPI_PXM
        6x -
        Q addr
        Q region_size
        Q usable_region_size
        Q plugged_size
        Q requested_size
        """,
        "VIRTIO_MEM_F_",
    ),
    # 5.16.4, 5.17.4: none
    "i2c": (),
    "scmi": (),
    # 5.18.4
    "gpio": _fields(
        """
        H ngpio
        2x -
        I gpio_names_size
        """,
        "VIRTIO_GPIO_F_",
    ),
    # 5.19.4
    "pmem": _fields(
        """
        Q start
        Q size
        """,
        "VIRTIO_PMEM_F_",
    ),
}


def size_of(type_: str) -> int:
    """Return how many bytes a type's configuration space has, as far as its fields are known."""
    return struct.calcsize("<" + "".join(field.format for field in LAYOUTS.get(type_, ())))


def decode(type_: str, data: bytes, features: Collection[str]) -> dict[str, Value]:
    """Return the fields of a configuration space that are there with these features.

    Numbers are as they are there: sizes of a disk in sectors of 512 bytes, say. Addresses and tags are texts. A space
    that ends early, of an older device, has fewer fields.
    """
    return dict(_decoded(LAYOUTS.get(type_, ()), data, features))


def _decoded(layout: tuple[Field, ...], data: bytes, features: Collection[str]) -> Iterator[tuple[str, Value]]:
    offset = 0
    for field in layout:
        end = offset + struct.calcsize("<" + field.format)
        if end > len(data):
            return
        if not field.format.endswith("x") and (not field.feature or field.feature in features):
            (value,) = struct.unpack("<" + field.format, data[offset:end])
            if field.name == "mac":
                value = value.hex(":")
            elif isinstance(value, bytes):
                value = value.rstrip(b"\0").decode(errors="backslashreplace")
            yield field.name, value
        offset = end
