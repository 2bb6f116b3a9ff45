"""Real virtual machines for pytest.

Everything public is here and imported when it is first used: a session without a machine pays for none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kvm.errors import (
        AcceleratorUnavailable,
        AgentError,
        BalloonTimeout,
        BootTimeout,
        CasesFailed,
        CommandError,
        CommandTimeout,
        ConsoleTimeout,
        DriveFailed,
        DriveInUse,
        GuestPanic,
        HostError,
        HotplugError,
        ImageUnavailable,
        KernelSplat,
        KVMError,
        LaunchError,
        LoginFailed,
        MachineError,
        NegotiationError,
        NotSeen,
        QEMUExited,
        QemuImgError,
        QEMUNotFound,
        QMPError,
        ShellLost,
        SpecError,
        SSHError,
        TeardownError,
        TooMuchOutput,
        TransferError,
        TrayLocked,
        Verdict,
        WaitTimeout,
    )
    from pytest_kvm.guest.result import CompletedCommand
    from pytest_kvm.machine.snapshots import Snapshot
    from pytest_kvm.machine.vm import VM
    from pytest_kvm.plugin.factories import VMFactory
    from pytest_kvm.plugin.parametrize import vm_parametrize
    from pytest_kvm.spec.devices import (
        CPU,
        Device,
        Dimm,
        VirtioBalloon,
        VirtioConsole,
        VirtioCrypto,
        VirtioGPU,
        VirtioIOMMU,
        VirtioKeyboard,
        VirtioMem,
        VirtioMouse,
        VirtioMultitouch,
        VirtioPmem,
        VirtioRng,
        VirtioSCSI,
        VirtioSerial,
        VirtioSerialPort,
        VirtioSound,
        VirtioTablet,
    )
    from pytest_kvm.spec.drive import Drive
    from pytest_kvm.spec.image import Image
    from pytest_kvm.spec.nic import Nic
    from pytest_kvm.spec.numa import NumaNode
    from pytest_kvm.spec.reference import FromFixture
    from pytest_kvm.spec.share import Share
    from pytest_kvm.spec.vm import VMSpec

    __version__: str

__all__ = [
    "CPU",
    "VM",
    "AcceleratorUnavailable",
    "AgentError",
    "BalloonTimeout",
    "BootTimeout",
    "CasesFailed",
    "CommandError",
    "CommandTimeout",
    "CompletedCommand",
    "ConsoleTimeout",
    "Device",
    "Dimm",
    "Drive",
    "DriveFailed",
    "DriveInUse",
    "FromFixture",
    "GuestPanic",
    "HostError",
    "HotplugError",
    "Image",
    "ImageUnavailable",
    "KVMError",
    "KernelSplat",
    "LaunchError",
    "LoginFailed",
    "MachineError",
    "NegotiationError",
    "Nic",
    "NotSeen",
    "NumaNode",
    "QEMUExited",
    "QEMUNotFound",
    "QMPError",
    "QemuImgError",
    "SSHError",
    "Share",
    "ShellLost",
    "Snapshot",
    "SpecError",
    "TeardownError",
    "TooMuchOutput",
    "TransferError",
    "TrayLocked",
    "VMFactory",
    "VMSpec",
    "Verdict",
    "VirtioBalloon",
    "VirtioConsole",
    "VirtioCrypto",
    "VirtioGPU",
    "VirtioIOMMU",
    "VirtioKeyboard",
    "VirtioMem",
    "VirtioMouse",
    "VirtioMultitouch",
    "VirtioPmem",
    "VirtioRng",
    "VirtioSCSI",
    "VirtioSerial",
    "VirtioSerialPort",
    "VirtioSound",
    "VirtioTablet",
    "WaitTimeout",
    "__version__",
    "vm_parametrize",
]

_HOMES = {
    **dict.fromkeys((name for name in __all__ if name.startswith("Virtio")), "pytest_kvm.spec.devices"),
    **dict.fromkeys(("CPU", "Device", "Dimm"), "pytest_kvm.spec.devices"),
    "VM": "pytest_kvm.machine.vm",
    "CompletedCommand": "pytest_kvm.guest.result",
    "Drive": "pytest_kvm.spec.drive",
    "FromFixture": "pytest_kvm.spec.reference",
    "Image": "pytest_kvm.spec.image",
    "Nic": "pytest_kvm.spec.nic",
    "NumaNode": "pytest_kvm.spec.numa",
    "Share": "pytest_kvm.spec.share",
    "Snapshot": "pytest_kvm.machine.snapshots",
    "VMFactory": "pytest_kvm.plugin.factories",
    "VMSpec": "pytest_kvm.spec.vm",
    "vm_parametrize": "pytest_kvm.plugin.parametrize",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("pytest-kvm")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "pytest_kvm.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
