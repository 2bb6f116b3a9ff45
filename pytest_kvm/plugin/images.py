"""The images that a project describes: in its pyproject.toml, and by the hook in its conftest.py."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.images.described import check_name, read_project
from pytest_kvm.spec.construction import raise_postponed
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.wording import shown


def described_images(config: pytest.Config) -> dict[str, Image]:
    """Return the project's images by their names. Raises SpecError."""
    images = read_project(config.rootpath)
    # The last answer is that of the plugin registered first: a conftest.py goes before what it uses.
    for answer in reversed(config.hook.pytest_kvm_images(config=config)):
        if not isinstance(answer, Mapping):
            raise SpecError(f"pytest_kvm_images: expected a mapping of names to images, got {shown(answer)}")
        for name, image in answer.items():
            if not isinstance(image, Image):
                raise SpecError(f"pytest_kvm_images: expected Image(...) for {name!r}, got {shown(image)}")
            raise_postponed(image)
            if holds_reference(image):
                raise SpecError(
                    f"pytest_kvm_images: there are no fixtures for {name!r} yet; FromFixture is for markers"
                )
            images[check_name(name)] = image.below(config.rootpath)
    return images
