"""The line of the report's header: which QEMU, which accelerator, which image."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.plugin.options import OPTIONS


def header(config: pytest.Config) -> str:
    """Return the line; nothing is probed for it, an accelerator not known yet is shown as ``auto``."""
    from pytest_kvm.host.accel import remembered
    from pytest_kvm.host.cache import cache_dir
    from pytest_kvm.qemu.binary import find_qemu

    options = config.stash[OPTIONS]
    try:
        binary = find_qemu(options.qemu, memory=cache_dir() / "host")
    except HostError as error:
        reason, _, _ = str(error).partition("\n")
        return f"kvm: {reason}"
    accel = options.accel
    if accel == "auto":
        choice = remembered(binary)
        if choice is not None:
            accel = str(choice)
    return f"kvm: QEMU {binary.version_text} ({binary.path}), accel={accel}, image={options.image}"
