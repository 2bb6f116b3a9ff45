"""Option texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm.qemu.text import option


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (None, "driver"),
        ({}, "driver"),
        ({"id": "a", "port": 7}, "driver,id=a,port=7"),
        ({"on": True, "off": False, "absent": None}, "driver,on=on,off=off"),
        ({"zero": 0, "empty": ""}, "driver,zero=0,empty="),
        ({"file": Path("/a,b"), "id": "x"}, "driver,file=/a,,b,id=x"),
        ({"serial": ",if=none,"}, "driver,serial=,,if=none,,"),
    ],
)
def test_commas_in_values_are_doubled(settings: dict[str, object] | None, text: str) -> None:
    assert option("driver", settings) == text
