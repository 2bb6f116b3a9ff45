"""What the launcher finds once is found once."""

from __future__ import annotations

import contextlib

import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.machine.launcher import Launcher
from pytest_kvm.machine.settings import Settings
from pytest_kvm.spec.vm import VMSpec


def test_an_image_that_cannot_be_had_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def find(_: Catalogue, given: object) -> None:
        tried.append(given)
        raise ImageUnavailable("image 'cirros' cannot be fetched", hint="look for the network")

    monkeypatch.setattr(Catalogue, "find", find)
    with contextlib.closing(Launcher(Settings())) as launcher:
        for _ in range(3):
            with pytest.raises(ImageUnavailable) as caught:
                launcher.create(VMSpec(image="cirros"))
            assert str(caught.value) == "image 'cirros' cannot be fetched\n  look for the network"
    assert tried == ["cirros"]
