"""The lines of the report's header: which QEMU, which accelerator, which image."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import HostError
from pytest_kvm.plugin.options import OPTIONS, Options
from pytest_kvm.plugin.variants import labels


def header(config: pytest.Config) -> str:
    """Return a line for each QEMU, and one for the kernels.

    Nothing is probed for it: an accelerator not known yet is shown as ``auto``.
    """
    options = config.stash[OPTIONS]
    lines = [_line(options, name) for name in options.qemu or (None,)]
    if options.kernel:
        lines.append(f"kvm: kernel{'s' if len(options.kernel) > 1 else ''} {', '.join(labels(options.kernel))}")
    return "\n".join(lines)


def _line(options: Options, qemu: str | None) -> str:
    from pytest_kvm.host.accel import remembered
    from pytest_kvm.host.cache import cache_dir
    from pytest_kvm.qemu.binary import find_qemu

    try:
        binary = find_qemu(qemu, memory=cache_dir() / "host")
    except HostError as error:
        reason, _, _ = str(error).partition("\n")
        return f"kvm: {reason}"
    accel = options.accel
    if accel == "auto":
        choice = remembered(binary)
        if choice is not None:
            accel = str(choice)
    return f"kvm: QEMU {binary.version_text} ({binary.path}), accel={accel}, image={options.image}"
