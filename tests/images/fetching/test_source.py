"""Where disks come from, declared wrongly."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.images.fetching.source import Source
from tests.images.fetching.servers import CHECKSUM


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        *(
            ({"filename": name}, f"filename {name!r} must be a name, without folders and not hidden")
            for name in ("", ".", "..", "../up", "a/b", "/etc/passwd", ".record.json", "a\0b")
        ),
        ({"urls": ()}, "image file 'disk.img' has no address to be fetched from"),
        ({"urls": ("ftp://h/x",)}, "address 'ftp://h/x' is not http://HOST/… or https://HOST/…"),
        ({"urls": ("http://[h/x",)}, "address 'http://[h/x' is not http://HOST/… or https://HOST/…"),
        (
            {"checksum": None},
            "image file 'disk.img' has neither checksum nor checksum_url: nothing would verify it",
        ),
        (
            {"checksum_url": "http://h/SUMS"},
            "checksum_url 'http://h/SUMS' is not https://HOST/…: what verifies a file must not be forged on its way",
        ),
    ],
)
def test_wrong_sources(changes: dict[str, object], text: str) -> None:
    fields = {"urls": ("http://h/x",), "filename": "disk.img", "checksum": CHECKSUM, **changes}
    with pytest.raises(SpecError) as caught:
        Source(**fields)  # type: ignore[arg-type]  # as a caller without types would
    assert str(caught.value) == text
