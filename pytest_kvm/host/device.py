"""The device nodes that KVM and vhost need: are they there, may we use them, and if not, what mends that?"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

DEVICE = "/dev/kvm"
CPUINFO = Path("/proc/cpuinfo")
# What container engines leave in their containers.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))
NESTED = (
    "this host is a virtual machine itself; give it nested virtualization "
    "(libvirt: <cpu mode='host-passthrough'/>, clouds: an instance type that has it)"
)
BUSY = "stop the machines of the other hypervisor (VirtualBox, VMware), or unload its modules"


@dataclass(frozen=True)
class Trouble:
    """What is wrong, in a few words, and what mends it, a command a line where one does."""

    reason: str
    fix: str


def device_trouble() -> Trouble | None:
    """Return why KVM's node cannot be opened, None when it can."""
    return _missing() if not os.path.lexists(DEVICE) else node_trouble(DEVICE, _module())


def node_trouble(path: str, module: str) -> Trouble | None:
    """Return why a device node cannot be opened, None when it can; ``module`` is the kernel's that it is of."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return _in_container(path) or Trouble(f"no {path}", f"sudo modprobe {module}")
    except PermissionError:
        return Trouble(f"no permission for {path}", _permission(path))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return Trouble(f"{path} is there, but the module is not loaded", f"sudo modprobe {module}")
        if error.errno == errno.EBUSY:
            return Trouble("another hypervisor holds it", BUSY)
        return Trouble(f"{path}: {error.strerror}", "")
    return None


def udev_rule(path: str) -> str:
    """Return the command that lets all users open a node, for where nobody can log in anew, as in CI (udev(7))."""
    name = Path(path).name
    rule = f'KERNEL=="{name}", GROUP="kvm", MODE="0666", OPTIONS+="static_node={path.removeprefix("/dev/")}"'
    return (
        f"echo '{rule}' | sudo tee /etc/udev/rules.d/99-{name}.rules && sudo udevadm control --reload-rules && "
        f"sudo udevadm trigger --name-match={name}"
    )


def guest_fix(trouble: str) -> str:
    """Return what mends KVM where the node opens and the probe guest had this trouble."""
    if "Device or resource busy" in trouble:
        return BUSY
    if "Permission denied" in trouble:
        return _permission(DEVICE)
    if "hypervisor" in _flags():
        return f"{NESTED}; where it has that already, it does not work: use another host"
    return "look at the kernel's log (dmesg) for messages of kvm, and for firmware updates of this host"


def _missing() -> Trouble:
    flags = _flags()
    contained = _in_container(DEVICE)
    if contained is not None:
        return contained
    if flags & {"vmx", "svm"}:
        return Trouble(f"no {DEVICE}: the module is not loaded", f"sudo modprobe {_module()}")
    if "hypervisor" in flags:
        return Trouble(f"no {DEVICE}: this host has no nested virtualization", NESTED)
    return Trouble(
        f"no {DEVICE}: the CPU shows no VT-x or AMD-V",
        "switch it on in the firmware's setup, where the CPU has it",
    )


def _in_container(path: str) -> Trouble | None:
    if any(mark.exists() for mark in CONTAINER_MARKS):
        return Trouble(f"no {path} in this container", f"start the container with --device={path}")
    return None


def _permission(path: str) -> str:
    """Return how to get at a node: through its group, or by a rule for all."""
    status = os.stat(path)
    lines = []
    if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        lines.append(f"sudo usermod -aG {_group(status.st_gid)} {_user()}, and log in anew")
        lines.append(f"in CI: {udev_rule(path)}")
    else:
        lines.append(udev_rule(path))
    return "\n".join(lines)


def _flags() -> frozenset[str]:
    try:
        text = CPUINFO.read_text()
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def _module() -> str:
    return "kvm_amd" if "svm" in _flags() else "kvm_intel"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
