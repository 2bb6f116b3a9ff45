"""The marker ``vm_requires``: a test is skipped where QEMU, the host or the guest's kernel lack what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pytest_kvm.errors import MachineError, SpecError

if TYPE_CHECKING:
    from pytest_kvm.machine.launcher import Launcher
    from pytest_kvm.machine.vm import VM

REQUIRES = "vm_requires"
# What is known before a machine is made, and what only its kernel tells.
HOST = ("accel", "device", "qemu")
GUEST = ("config", "module", "version")
_VERSIONS = ("qemu", "version")
_CONFIG = re.compile(r"CONFIG_\w+(=.+)?")


def check_requirements(item: pytest.Item) -> None:
    """Raise SpecError when one of the test's marks cannot be read."""
    for _ in _asked(item, (*HOST, *GUEST)):
        pass


def require_host(item: pytest.Item, launcher: Callable[[], Launcher]) -> None:
    """Skip the test when QEMU or the host lack something; raises HostError when there is no QEMU."""
    checks: Mapping[str, Callable[[Launcher, str], str]] = {"accel": _accel, "device": _device, "qemu": _qemu}
    for name, value in _asked(item, HOST):
        _skip_for(name, value, checks[name](launcher(), value))


def require_guest(item: pytest.Item, machines: Iterable[VM]) -> None:
    """Skip the test when a machine or its kernel lack something."""
    checks: Mapping[str, Callable[[VM, str], str]] = {
        "accel": _runs_with,
        "config": _config,
        "module": _module,
        "version": _version,
    }
    for vm in machines:
        for name, value in _asked(item, checks):
            _skip_for(name, value, checks[name](vm, value) if vm.running else "")


def _asked(item: pytest.Item, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what the marks of all levels ask for under these names; raises SpecError."""
    for mark in item.iter_markers(REQUIRES):
        unknown = mark.kwargs.keys() - {*HOST, *GUEST}
        if mark.args or unknown or not mark.kwargs:
            given = [*map(repr, mark.args), *(f"{key}={value!r}" for key, value in mark.kwargs.items())]
            raise SpecError(
                f"{REQUIRES}: expected {', '.join(f'{name}=' for name in sorted((*HOST, *GUEST)))};"
                f" got {REQUIRES}({', '.join(given)})"
            )
        for name, value in mark.kwargs.items():
            if name in names:
                for one in [value] if isinstance(value, str) else value:
                    yield name, _checked(name, one)


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{REQUIRES}({name}={value!r}): expected a text, or several", keyword=name, value=value)
    if name in _VERSIONS:
        try:
            SpecifierSet(value)
        except InvalidSpecifier:
            raise SpecError(
                f"{REQUIRES}({name}={value!r}): expected versions such as '>=6.1' or '>=6.1,<6.13'",
                keyword=name,
                value=value,
            ) from None
    if name == "config" and _CONFIG.fullmatch(value) is None:
        raise SpecError(
            f"{REQUIRES}(config={value!r}): expected an option such as 'CONFIG_VIRTIO_FS' (built in or a module),"
            " 'CONFIG_VIRTIO_FS=y' or 'CONFIG_KASAN=n'",
            keyword=name,
            value=value,
        )
    return value


def _skip_for(name: str, value: str, lack: str) -> None:
    if lack:
        pytest.skip(f"needs {name} {value}: {lack}")


# Each returns what is lacking, "" if nothing is.


def _accel(launcher: Launcher, value: str) -> str:
    from pytest_kvm.host.accel import trouble_with

    return trouble_with(value, launcher.binary)


def _device(launcher: Launcher, value: str) -> str:
    binary = launcher.binary
    return "" if value in binary.devices else f"QEMU {binary.version_text} ({binary.path}) has no such device"


def _qemu(launcher: Launcher, value: str) -> str:
    binary = launcher.binary
    return "" if SpecifierSet(value).contains(binary.version_text) else f"this is QEMU {binary.version_text}"


def _runs_with(vm: VM, value: str) -> str:
    name = vm.accel.partition(",")[0]
    return "" if name == value else f"VM {vm.name!r} runs with {name}"


def _version(vm: VM, value: str) -> str:
    numbers = ".".join(map(str, vm.kernel.numbers))
    return "" if numbers and SpecifierSet(value).contains(numbers) else f"the kernel is {vm.kernel.release}"


def _module(vm: VM, value: str) -> str:
    return "" if vm.kernel.has_module(value) else f"kernel {vm.kernel.release} has no such module"


def _config(vm: VM, value: str) -> str:
    option, equals, wanted = value.partition("=")
    try:
        found = vm.kernel.config.get(option, "n")
    except MachineError as error:
        return str(error)
    good = found == wanted if equals else found in ("y", "m")
    return "" if good else f"kernel {vm.kernel.release} has {option}={found}"
