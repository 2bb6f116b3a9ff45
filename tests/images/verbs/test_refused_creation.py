"""Images that cannot be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kvm import images
from tests.images.verbs.refusing import refused

CREATE: list[tuple[dict[str, Any], str]] = [
    ({}, "size=None): give the size of the disk, such as '64M', or a backing file"),
    ({"size": "-5M"}, "size='-5M'): expected a size such as '512M'"),
    ({"size": -5}, "size=-5): expected a size such as"),
    ({"size": 0}, "size=0): a size must be more than 0"),
    ({"size": 100}, "size=100): a disk has at least 512 bytes, got 100; write '64M' for 64 MiB"),
    (
        {"size": "5X"},
        "size='5X'): expected a size such as '512M' or '1.5G' (without a suffix: B), got '5X'; the suffixes",
    ),
    ({"size": "9E"}, "size='9E'): a size must be more than 0 and at most 9223372036854775807 bytes"),
    ({"size": 1.5}, "size=1.5): expected a size such as '64M' (a number: bytes), got 1.5 (float)"),
    ({"size": True}, "size=True): expected a size such as"),
    ({"size": "8M", "format": "qcow3"}, "format='qcow3'): unknown value 'qcow3'; did you mean 'qcow'?"),
    ({"size": "8M", "format": "luks"}, "format='luks'): unknown value 'luks'; valid are raw, qcow2, qcow,"),
    ({"size": "8M", "options": {"clustersize": 1}}, "qcow2 has no option 'clustersize'; did you mean 'cluster_size'?"),
    ({"size": "8M", "options": {"cluster_size": "64Q"}}, "expected a size such as"),
    ({"size": "8M", "options": {"lazy_refcounts": "yes"}}, "'lazy_refcounts' True or False, got 'yes' (str)"),
    ({"size": "8M", "options": {"refcount_bits": "16"}}, "'refcount_bits' a whole number, got '16' (str)"),
    ({"size": "8M", "options": {"size": "9M"}}, "the option 'size' cannot be given here: it is the argument size="),
    ({"size": "8M", "options": {"data_file": "x"}}, "an image of two files cannot be made as a whole or not at all"),
    ({"size": "8M", "options": {"encrypt.format": "luks"}}, "the option 'encrypt.format' needs a secret"),
    ({"size": "8M", "options": ["cluster_size"]}, "expected a mapping of the format's options, such as"),
    ({"size": "8M", "options": {1: 2}}, "expected the name of an option, got 1 (int)"),
    (
        {"size": "8M", "format": "raw", "options": {"cluster_size": "64k"}},
        "raw has no option 'cluster_size'; valid are",
    ),
    ({"size": "8M", "format": "vmdk", "options": {"subformat": "monolithicFlat"}}, "is more than one file"),
    ({"backing": "disk"}, "backing_format=None): say its format, which is never guessed; it looks like qcow2"),
    ({"backing": "text"}, "backing_format=None): say its format, which is never guessed; it looks like raw"),
    ({"backing": "none", "backing_format": "qcow2"}, "the backing file '{}/none': there is no such file"),
    ({"backing": "raw", "backing_format": "qcow2"}, "'{}/raw': it is no qcow2 image, or not all of it"),
    ({"backing": "disk", "backing_format": "qcow3"}, "backing_format='qcow3'): unknown value 'qcow3'"),
    ({"backing": "disk", "backing_format": "qcow2", "format": "raw"}, "raw has no backing file; qcow2, qed, qcow or"),
    ({"size": "8M", "backing_format": "qcow2"}, "backing=None): it has to be given with backing_format="),
    ({"size": "8M", "overwrite": 1}, "overwrite=1): expected True or False, got 1 (int)"),
]


@pytest.mark.parametrize(("arguments", "reason"), CREATE, ids=[str(arguments) for arguments, _ in CREATE])
def test_create(folder: Path, arguments: dict[str, Any], reason: str) -> None:
    assert reason in refused(folder, lambda: images.create("new", **arguments))
