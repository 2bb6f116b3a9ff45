"""Which kernel a machine boots, and the built-in guest's userland on top of it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kvm.host.cache import cache_dir
from pytest_kvm.images.builtin.built import is_built
from pytest_kvm.images.catalogue import Catalogue
from pytest_kvm.images.kernels.banner import last_banner
from pytest_kvm.images.kernels.initrd import fitted
from pytest_kvm.images.kernels.packaged import packaged_config, packaged_modules
from pytest_kvm.images.kernels.source import Kernel, find_kernel
from pytest_kvm.machine.evidence import CONSOLE
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec

if TYPE_CHECKING:
    from pytest_kvm.machine.vm import VM


class Kernels:
    """The kernels that tests name, each looked into once in a session; usable from any thread."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[str, Kernel] = {}
        self._lock = threading.Lock()

    def resolve(self, spec: VMSpec) -> tuple[VMSpec, Kernel | None]:
        """Return the spec with the file that ``kernel=`` means, and what that is.

        Raises SpecError, and ImageUnavailable for that of a built-in guest.
        """
        if spec.kernel is None:
            return spec, None
        name = str(spec.kernel)
        with self._lock:
            known = self._known.get(name)
        if known is None:
            known = self._of_guest(name) if is_built(name) else find_kernel(Path(name))
            with self._lock:
                self._known[name] = known
        return spec.replace(kernel=known.file), known

    def _of_guest(self, name: str) -> Kernel:
        """Return the kernel of a built-in guest; its modules are in its own initramfs."""
        return self.of_image(self._catalogue.find(name))

    def of_image(self, image: Image) -> Kernel:
        """Return the kernel that an image is booted with, which is not on a disk."""
        kernel = find_kernel(Path(str(image.kernel)))
        if not image.shell or not is_built(image.label):
            return kernel
        of_package = (image.label.partition(":")[2] or None, kernel.release, cache_dir())
        return replace(
            kernel,
            initrd=Path(str(image.initrd)),
            config=partial(packaged_config, *of_package),
            more=partial(packaged_modules, *of_package),
        )

    def fit(self, spec: VMSpec, image: Image | None, kernel: Kernel | None) -> Image | None:
        """Return the image with an initramfs that has the modules of the kernel, if it is the built-in guest.

        Raises SpecError for a kernel that the guest cannot be reached on, ImageUnavailable.
        """
        if image is None or kernel is None or not image.shell or spec.initrd is not None or image.initrd is None:
            return image
        if kernel.initrd is not None:
            return replace(image, initrd=kernel.initrd)
        own = self.of_image(image)
        if not kernel.release or kernel.release == own.release:
            return image
        return replace(image, initrd=fitted(Path(image.initrd), kernel, cache_dir()))


def running_kernel(vm: VM) -> Kernel | None:
    """Return what is known about the kernel of a machine: on the host, else by what it said on the console."""
    known = vm.host_kernel()
    if known is not None:
        return known
    try:
        banner = last_banner((vm._folder / CONSOLE).read_bytes())
    except OSError:  # it has no console
        return None
    return Kernel(Path(os.devnull), banner.release, banner.version) if banner is not None else None
