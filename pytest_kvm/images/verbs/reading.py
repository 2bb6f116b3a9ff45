"""Read what qemu-img prints as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_kvm.images.formats import read_qcow2
from pytest_kvm.images.verbs.call import Call
from pytest_kvm.images.verbs.results import Bitmap, CheckResult, DiskSnapshot, ImageInfo


def read_info(call: Call, path: Path, format_: str, *, force_share: bool = False, chain: bool = False) -> ImageInfo:
    """Ask qemu-img what an image is; raises QemuImgError, HostError."""
    flags = [flag for flag, wanted in (("-U", force_share), ("--backing-chain", chain)) if wanted]
    done = call.run("info", "--output=json", "-f", format_, *flags, str(path), shareable=True)
    answer = json.loads(done.stdout)
    told = answer if chain else [answer]
    files = [path]
    for each in told[:-1]:
        files.append(_backing(files[-1], each)[1] or Path(each["full-backing-filename"]))
    behind = tuple(_info(file, each) for file, each in zip(files[1:], told[1:], strict=True))
    return _info(path, told[0], behind)


def _info(path: Path, told: Mapping[str, Any], chain: tuple[ImageInfo, ...] = ()) -> ImageInfo:
    specific = told.get("format-specific", {}).get("data", {})
    name, backing = _backing(path, told)
    return ImageInfo(
        path=path,
        format=told["format"],
        virtual_size=told["virtual-size"],
        disk_size=told.get("actual-size", 0),
        cluster_size=told.get("cluster-size"),
        backing_file=backing,
        backing_name=name,
        backing_format=told.get("backing-filename-format"),
        snapshots=tuple(_snapshot(each) for each in told.get("snapshots", ())),
        bitmaps=tuple(_bitmap(each) for each in specific.get("bitmaps", ())),
        dirty=told.get("dirty-flag", False),
        corrupt=specific.get("corrupt", False),
        encrypted=told.get("encrypted", False),
        specific=specific,
        chain=chain,
    )


def _backing(path: Path, told: Mapping[str, Any]) -> tuple[str | None, Path | None]:
    """Return the backing file's name and place; names that JSON cannot have are read from the header."""
    name, place = told.get("backing-filename"), told.get("full-backing-filename")
    if name is not None and "\ufffd" in name and told["format"] == "qcow2":
        name = read_qcow2(path).backing
        place = str(path.parent / name) if name is not None else None
    return name, Path(place) if place is not None else None


def _snapshot(told: Mapping[str, Any]) -> DiskSnapshot:
    return DiskSnapshot(
        id=told["id"],
        name=told["name"],
        vm_state_size=told["vm-state-size"],
        date=datetime.fromtimestamp(told["date-sec"] + told["date-nsec"] / 1e9, tz=UTC),
        vm_clock=told["vm-clock-sec"] + told["vm-clock-nsec"] / 1e9,
    )


def _bitmap(told: Mapping[str, Any]) -> Bitmap:
    flags = told["flags"]
    return Bitmap(told["name"], told["granularity"], enabled="auto" in flags, in_use="in-use" in flags)


def read_check(stdout: str, stderr: str) -> CheckResult:
    """Read the result of a check."""
    told = json.loads(stdout)
    return CheckResult(
        errors=told.get("check-errors", 0),
        corruptions=told.get("corruptions", 0),
        leaks=told.get("leaks", 0),
        repaired=told.get("corruptions-fixed", 0) + told.get("leaks-fixed", 0),
        total_clusters=told.get("total-clusters"),
        allocated_clusters=told.get("allocated-clusters"),
        fragmented_clusters=told.get("fragmented-clusters"),
        compressed_clusters=told.get("compressed-clusters"),
        end_offset=told.get("image-end-offset"),
        problems=tuple(stderr.splitlines()),
    )
