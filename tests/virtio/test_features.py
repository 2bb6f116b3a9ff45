"""The tables of the specification: names, bits, configuration spaces."""

from __future__ import annotations

import struct

import pytest

from pytest_kvm.virtio.config import LAYOUTS, decode, size_of
from pytest_kvm.virtio.features import COMMON, bit_of, feature_names, names_of_type, ones, status_names
from pytest_kvm.virtio.types import TYPES

# Sizes of the structures in virtio 1.3, chapter 5.
SIZES = {
    "net": 28,
    "blk": 96,
    "serial": 12,
    "rng": 0,
    "balloon": 16,
    "scsi": 36,
    "9p": 2,
    "gpu": 16,
    "input": 3,
    "vsock": 8,
    "crypto": 56,
    "iommu": 40,
    "mem": 56,
    "sound": 16,
    "fs": 44,
    "pmem": 16,
    "rpmb": 3,
    "scmi": 0,
    "i2c": 0,
    "gpio": 8,
}


def test_every_type_has_tables() -> None:
    assert set(TYPES.values()) == set(LAYOUTS) == set(SIZES)
    for name in TYPES.values():
        assert set(names_of_type(name)) >= set(COMMON)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_sizes(name: str, size: int) -> None:
    assert size_of(name) == size


def test_names_are_unique_and_found_again() -> None:
    for type_ in TYPES.values():
        names = names_of_type(type_)
        assert len(set(names.values())) == len(names)
        assert {bit_of(type_, name) for name in names.values()} == set(names)


def test_names() -> None:
    assert feature_names("net", [22, 29, 34, 45]) == {
        *("VIRTIO_NET_F_MQ", "VIRTIO_RING_F_EVENT_IDX", "VIRTIO_F_RING_PACKED", "bit 45"),
    }
    assert feature_names("type 99", [0, 32]) == {"bit 0", "VIRTIO_F_VERSION_1"}
    assert bit_of("net", "bit 45") == 45
    assert bit_of("net", "VIRTIO_F_IOMMU_PLATFORM") == 33
    with pytest.raises(KeyError):
        bit_of("net", "VIRTIO_BLK_F_RO")
    assert ones(0) == []
    assert ones(0b1010) == [1, 3]


def test_status() -> None:
    assert status_names(0) == frozenset()
    assert status_names(0x4F) == {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK", "DEVICE_NEEDS_RESET"}
    assert status_names(0x30) == {"0x30"}


def test_fields_are_there_with_their_features() -> None:
    data = bytes.fromhex("525400123456") + struct.pack("<HHHIB", 1, 4, 1400, 10, 1)
    assert decode("net", data, {"VIRTIO_NET_F_MAC", "VIRTIO_NET_F_MTU"}) == {"mac": "52:54:00:12:34:56", "mtu": 1400}
    assert decode("net", data, {"VIRTIO_NET_F_MQ", "VIRTIO_NET_F_RSS"}) == {"max_virtqueue_pairs": 4}  # it ends there
    assert decode("net", b"", {"VIRTIO_NET_F_MAC"}) == {}
    assert decode("fs", b"share0".ljust(36, b"\0") + struct.pack("<II", 1, 0), set()) == {
        "tag": "share0",
        "num_request_queues": 1,
    }
