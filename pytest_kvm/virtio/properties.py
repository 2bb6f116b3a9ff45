"""Which feature bit QEMU's property of a virtio device switches: names of hw/virtio and hw/*/virtio-*.c."""

from __future__ import annotations

from collections.abc import Mapping

# Of all types (include/hw/virtio/virtio.h, DEFINE_VIRTIO_COMMON_FEATURES, and virtio-pci.h).
_COMMON = {
    "indirect_desc": "VIRTIO_RING_F_INDIRECT_DESC",
    "event_idx": "VIRTIO_RING_F_EVENT_IDX",
    "notify_on_empty": "VIRTIO_F_NOTIFY_ON_EMPTY",
    "any_layout": "VIRTIO_F_ANY_LAYOUT",
    "iommu_platform": "VIRTIO_F_ACCESS_PLATFORM",
    "packed": "VIRTIO_F_RING_PACKED",
    "queue_reset": "VIRTIO_F_RING_RESET",
    "in_order": "VIRTIO_F_IN_ORDER",
    "notification_data": "VIRTIO_F_NOTIFICATION_DATA",
}
_NET = (
    *("csum", "guest_csum", "gso", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "guest_announce"),
    *("host_tso4", "host_tso6", "host_ecn", "host_ufo", "mrg_rxbuf", "status", "ctrl_vq", "ctrl_rx", "ctrl_vlan"),
    *("ctrl_rx_extra", "ctrl_mac_addr", "ctrl_guest_offloads", "mq", "rss", "guest_uso4", "guest_uso6", "host_uso"),
)
_OWN: Mapping[str, Mapping[str, str]] = {
    "net": {
        **{name: f"VIRTIO_NET_F_{name.upper()}" for name in _NET},
        "hash": "VIRTIO_NET_F_HASH_REPORT",
        "guest_rsc_ext": "VIRTIO_NET_F_RSC_EXT",
        "failover": "VIRTIO_NET_F_STANDBY",
        "host_mtu": "VIRTIO_NET_F_MTU",
    },
    "blk": {
        "config-wce": "VIRTIO_BLK_F_CONFIG_WCE",
        "discard": "VIRTIO_BLK_F_DISCARD",
        "write-zeroes": "VIRTIO_BLK_F_WRITE_ZEROES",
        "scsi": "VIRTIO_BLK_F_SCSI",
    },
    "scsi": {"hotplug": "VIRTIO_SCSI_F_HOTPLUG", "param_change": "VIRTIO_SCSI_F_CHANGE"},
    "balloon": {
        "deflate-on-oom": "VIRTIO_BALLOON_F_DEFLATE_ON_OOM",
        "free-page-hint": "VIRTIO_BALLOON_F_FREE_PAGE_HINT",
        "page-poison": "VIRTIO_BALLOON_F_PAGE_POISON",
        "free-page-reporting": "VIRTIO_BALLOON_F_PAGE_REPORTING",
    },
    "serial": {"emergency-write": "VIRTIO_CONSOLE_F_EMERG_WRITE"},
    "gpu": {"edid": "VIRTIO_GPU_F_EDID", "blob": "VIRTIO_GPU_F_RESOURCE_BLOB"},
}
# Where a field of the configuration space has the value of a property.
CONFIG: Mapping[str, Mapping[str, str]] = {
    "net": {"host_mtu": "mtu", "mac": "mac"},
    "blk": {"num-queues": "num_queues"},
    "scsi": {"num_queues": "num_queues", "cmd_per_lun": "cmd_per_lun", "max_sectors": "max_sectors"},
    "serial": {"max_ports": "max_nr_ports"},
    "gpu": {"max_outputs": "num_scanouts"},
}
# Which queues have the size that a property says, of each type: a slice of them.
SIZES: Mapping[str, Mapping[str, slice]] = {
    "net": {"rx_queue_size": slice(0, 1), "tx_queue_size": slice(1, 2)},
    "blk": {"queue-size": slice(None)},
    "scsi": {"virtqueue_size": slice(2, None)},
}


def feature_of(type_: str, name: str) -> str | None:
    """Return the feature that a property of a type of device switches, None if it is none of that kind."""
    return {**_COMMON, **_OWN.get(type_, {})}.get(name)
