"""The kernel that runs in a guest: its release, configuration, modules and taint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.guest.result import CompletedCommand
from pytest_kvm.guest.runner import DEFAULT_TIMEOUT
from pytest_kvm.images.builtin.modules import decompress, module_name, read_info, select
from pytest_kvm.images.kernels.config import parse_config
from pytest_kvm.images.kernels.source import Kernel, Modules

# By bit, as in the kernel's Documentation/admin-guide/tainted-kernels.rst.
TAINTS = (
    *("proprietary module", "module loaded by force", "processor out of specification", "module unloaded by force"),
    *("machine check", "bad page", "taint asked for", "died", "ACPI table overridden", "warning", "staging driver"),
    *("firmware workaround", "out-of-tree module", "unsigned module", "soft lockup", "live patch", "auxiliary"),
    *("struct randomised", "in-kernel test", "fwctl"),
)
# What comes of a module that is not of the kernel's own, and is no trouble.
HARMLESS = frozenset({"out-of-tree module", "unsigned module", "in-kernel test"})
_FOLDER = "/tmp/pytest-kvm-modules"


class Guest(Protocol):
    """What a kernel runs in: a machine."""

    name: str

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = ...,
        input: bytes | None = None,
        cwd: str | None = None,
    ) -> CompletedCommand[str]:
        """Run a command."""


class GuestKernel:
    """The kernel of a machine; ``known`` is what is known about it on the host, None if nothing is.

    ``files`` takes the files of the host that modules are loaded from, by the modules' names. What is asked of the
    guest is asked once.
    """

    def __init__(self, vm: Guest, known: Kernel | None, files: dict[str, Path]) -> None:
        self._vm = vm
        self._known = known
        self._files = files

    @cached_property
    def release(self) -> str:
        """What ``uname -r`` says."""
        return self._known.release if self._known and self._known.release else self._ask("uname -r")

    @cached_property
    def version(self) -> str:
        """What ``uname -v`` says; it begins with the number of the build."""
        return self._known.version if self._known and self._known.version else self._ask("uname -v")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that the release begins with: ``6.12.0-rc1`` is (6, 12, 0)."""
        match = re.match(r"\d+(\.\d+)*", self.release)
        return tuple(map(int, match[0].split("."))) if match else ()

    @cached_property
    def config(self) -> Mapping[str, str]:
        """Its configuration: ``{"CONFIG_VIRTIO_NET": "m", …}``; what is not set is not in it.

        It comes from the build tree or the package, else from the guest. Raises MachineError when nobody has it.
        """
        text = self._known.config() if self._known is not None and self._known.config is not None else ""
        if text:
            return parse_config(text)
        said = self._vm.run("zcat /proc/config.gz 2>/dev/null || cat /boot/config-$(uname -r) 2>/dev/null", check=False)
        if said.returncode:
            raise MachineError(
                f"VM {self._vm.name!r}: the configuration of kernel {self.release} is not known: it is not beside the"
                " kernel, and the guest has neither /proc/config.gz nor a file in /boot"
            )
        return parse_config(said.stdout)

    @property
    def taint(self) -> frozenset[str]:
        """Why the kernel is tainted, at this moment: ``{"warning", "out-of-tree module"}``."""
        bits = int(self._ask("cat /proc/sys/kernel/tainted"))
        known = {name for bit, name in enumerate(TAINTS) if bits >> bit & 1}
        return frozenset(known | {f"bit {bit}" for bit in range(len(TAINTS), bits.bit_length()) if bits >> bit & 1})

    def has_module(self, name: str) -> bool:
        """Return whether the kernel has a module, built in, loaded, or to be loaded."""
        name = name.replace("-", "_")
        done = self._vm.run(f"test -e /sys/module/{name} || modprobe -n -q {name}", check=False)
        if done.returncode == 0:
            return True
        modules = self._on_host
        return modules is not None and (name in modules.paths or name in (modules.builtin or ()))

    # Modules

    @cached_property
    def _on_host(self) -> Modules | None:
        """The kernel's modules on the host, None if there are none."""
        if self._known is None or self._known.modules is not None or self._known.more is None:
            return self._known.modules if self._known is not None else None
        return self._known.more()

    def load(self, module: str, parameters: Mapping[str, object], *, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Do what ``VM.modprobe`` says; ``timeout`` is what the kernel may take to load it."""
        words = [f"{name}={value}" for name, value in parameters.items()]
        if module.endswith((".ko", ".ko.xz", ".ko.gz", ".ko.zst")):
            self._load_file(Path(module), words, timeout)
            return
        done = self._vm.run(["modprobe", module, *words], check=False, timeout=timeout)
        if done.returncode == 0:
            return
        modules = self._on_host
        name = module.replace("-", "_")
        if modules is None or name not in modules.paths:
            where = f"in {modules.root}" if modules is not None else "on the host"
            raise MachineError(
                f"VM {self._vm.name!r}: module {module!r} cannot be loaded into kernel {self.release}:"
                f" {(done.stderr or done.stdout).strip()} (and no such module is known {where})"
            )
        chosen = select([name], modules.paths, modules.read, modules.builtin or ())
        loaded = self._loaded()
        for path, content in chosen.files.items():
            if module_name(path) not in loaded:
                given = words if module_name(path) == name else []
                self._insert(module_name(path), content, given, timeout)

    def _load_file(self, path: Path, words: Sequence[str], timeout: float | None) -> None:
        try:
            content = decompress(path.name, path.read_bytes())
            depends = read_info(content).depends
        except (OSError, ValueError) as error:
            raise SpecError(f"modprobe({str(path)!r}): {error}", value=path) from error
        for needed in depends:
            if needed not in self._loaded():
                self.load(needed, {})
        name = module_name(path.name)
        self._files[name] = path.absolute()  # also when its initialisation fails: it may have been said where
        self._insert(name, content, words, timeout)

    def _insert(self, name: str, content: bytes, words: Sequence[str], timeout: float | None) -> None:
        file = f"{_FOLDER}/{name}.ko"
        self._vm.run(f"mkdir -p {_FOLDER} && cat >{file}", input=content)
        done = self._vm.run(["insmod", file, *words], check=False, timeout=timeout)
        if done.returncode:
            raise MachineError(
                f"VM {self._vm.name!r}: module {name!r} cannot be loaded into kernel {self.release}:"
                f" {(done.stderr or done.stdout).strip()}"
            )

    def unload(self, module: str) -> None:
        """Do what ``VM.rmmod`` says."""
        done = self._vm.run(["rmmod", module_name(module)], check=False)
        if done.returncode:
            raise MachineError(
                f"VM {self._vm.name!r}: module {module!r} cannot be unloaded: {(done.stderr or done.stdout).strip()}"
            )

    def _loaded(self) -> frozenset[str]:
        return frozenset(self._ask("ls /sys/module").split())

    def _ask(self, command: str) -> str:
        return self._vm.run(command).stdout.strip()
