"""The options of the command line and their twins in the ini file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.plugin import values
from pytest_kvm.plugin.values import ARTIFACTS, BOTH

if TYPE_CHECKING:
    from pytest_kvm.spec.vm import VMSpec

Value = TypeVar("Value")

HELP = {
    "accel": "accelerator: auto (the default), kvm, tcg, hvf, or QEMU's text such as tcg,thread=single,tb-size=256",
    "image": "default image: a name of the catalogue (default: tiny) or a path",
    "timeout": "seconds until a machine must be ready (default: 60, under emulation 120, and up to four times as long "
    "while it gets on)",
    "start": "how machines begin: auto (the default: as clones of a booted one where that is possible), boot, clone, "
    "or both, one after the other",
    "share": "how folders of the host come into guests: auto (the default: the best that host and guest have), "
    "virtiofs, 9p, or image, a read-only copy",
    "gcov": "tracefile of lcov's that is to be made: which lines of kernels with CONFIG_GCOV_KERNEL each test runs",
    "template-limit": "what booted machines kept for clones may take, in the cache directory (default: 4G)",
    "memory-budget": "what the machines of all your sessions may take together on this host, or off (default: three "
    "quarters of its memory)",
    "max-vcpus": "how many virtual CPUs they may have, or off (default: 16 for each CPU, at least 32)",
    "max-machines": "how many there may be, or off (the default)",
    "repeat": "run every test with a machine N times, each time with fresh machines",
    "artifacts": "whether what is known about a test's machines is kept: on-failure (the default), always, never",
    "artifacts-dir": "directory for it (default: test-results in the root directory)",
    "archive": "package archive that the built-in guest is made from (default: apt's own)",
    "keyring": "file with the keys that verify --kvm-archive",
}
METAVARS = {
    "start": "HOW",
    "share": "METHOD",
    "template-limit": "SIZE",
    "memory-budget": "SIZE",
    "max-vcpus": "N",
    "max-machines": "N",
    "repeat": "N",
    "gcov": "FILE",
    "artifacts": "WHEN",
    "artifacts-dir": "DIR",
}
ARTIFACTS_DIR = "test-results"
ALLOW_SPLAT = "kernel splats with this regular expression in report or title are no failure (may be given repeatedly)"
QEMU = (
    "QEMU's system emulator: a path or a name (default: qemu-system-x86_64, qemu-kvm or kvm); given repeatedly, every "
    "test with a machine runs with each"
)
KERNEL = (
    "kernel that machines boot which have an image and name no other: a file (bzImage, vmlinux), a build tree, the "
    "folder of an installation, a pattern of them, or tiny:SUITE for that built-in guest's; given repeatedly, every "
    "test with a machine runs with each"
)
VMLINUX = (
    "vmlinux with the debug information of a kernel that does not have it beside it, for file and line in what that "
    "kernel reports (may be given repeatedly: each is used for the kernel that it is)"
)
FLAGS = {
    "strict": "fail instead of skipping when this host cannot run a machine",
    "offline": "fetch nothing: use only what is in the cache",
    "keep": "when a test fails, leave its machines running, say how to attach to them, and wait for Enter",
    "until-failure": "repeat the tests with machines, all of them one after the other, until one fails, or as often as "
    "--kvm-repeat says",
    "vmcore": "when a guest has panicked and its test fails, dump its memory beside the artifacts, for crash and drgn",
    "gdb-wait": "let every machine boot, and wait before its first instruction until gdb attaches and continues",
    "save-state": "save memory, devices and disks of a failed test's machines, for 'pytest-kvm reopen'",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line and the ini file say; relative paths in it are absolute."""

    accel: str = "auto"
    image: str | os.PathLike[str] = "tiny"
    qemu: Sequence[str] = ()
    kernel: Sequence[str] = ()
    vmlinux: Sequence[str] = ()
    repeat: int = 0
    timeout: float | None = None
    start: str = "auto"
    share: str = "auto"
    template_limit: int | None = None
    memory_budget: int | None = None
    max_vcpus: int | None = None
    max_machines: int | None = None
    artifacts: str = ARTIFACTS[0]
    artifacts_dir: Path = Path(ARTIFACTS_DIR)
    gcov: Path | None = None
    archive: str | None = None
    keyring: str | None = None
    allow_splat: Sequence[re.Pattern[str]] = ()
    strict: bool = False
    offline: bool = False
    keep: bool = False
    until_failure: bool = False
    save_state: bool = False
    vmcore: bool = False
    gdb_wait: bool = False


OPTIONS = pytest.StashKey[Options]()


def ini_name(name: str) -> str:
    """Return the name of an option's twin in the ini file, which is that of its value, too."""
    return f"kvm_{name.replace('-', '_')}"


def add_options(parser: pytest.Parser) -> None:
    """Add each option and its ini twin."""
    group = parser.getgroup("kvm", "virtual machines (pytest-kvm)")
    for name, text in HELP.items():
        group.addoption(f"--kvm-{name}", metavar=METAVARS.get(name, name.upper()), default=None, help=text)
        parser.addini(ini_name(name), text, default=None)
    group.addoption("--kvm-qemu", metavar="QEMU", action="append", default=[], help=QEMU)
    parser.addini("kvm_qemu", QEMU, type="linelist", default=[])
    group.addoption("--kvm-kernel", metavar="KERNEL", action="append", default=[], help=KERNEL)
    parser.addini("kvm_kernel", KERNEL, type="linelist", default=[])
    group.addoption("--kvm-vmlinux", metavar="FILE", action="append", default=[], help=VMLINUX)
    parser.addini("kvm_vmlinux", VMLINUX, type="linelist", default=[])
    group.addoption("--kvm-allow-splat", metavar="PATTERN", action="append", default=[], help=ALLOW_SPLAT)
    parser.addini("kvm_allow_splat", ALLOW_SPLAT, type="linelist", default=[])
    for name, text in FLAGS.items():
        group.addoption(f"--kvm-{name}", action="store_true", default=None, help=text)
        parser.addini(ini_name(name), text, type="bool", default=False)


def read_options(config: pytest.Config) -> Options:
    """Return the options; raises pytest.UsageError for a value that cannot be."""
    try:
        return Options(
            accel=_read(config, "accel", values.accel) or "auto",
            image=_read(config, "image", values.image) or "tiny",
            qemu=_several(config, "qemu", values.qemu),
            kernel=_several(config, "kernel", values.kernels),
            vmlinux=_several(config, "vmlinux", values.vmlinux),
            repeat=_read(config, "repeat", values.times) or 0,
            timeout=_read(config, "timeout", values.timeout),
            start=_read(config, "start", values.start) or "auto",
            share=_read(config, "share", values.share) or "auto",
            template_limit=_read(config, "template-limit", values.size),
            memory_budget=_read(config, "memory-budget", values.budget),
            max_vcpus=_read(config, "max-vcpus", values.count),
            max_machines=_read(config, "max-machines", values.count),
            artifacts=_read(config, "artifacts", values.artifacts) or ARTIFACTS[0],
            artifacts_dir=Path(_read(config, "artifacts-dir", values.file) or config.rootpath / ARTIFACTS_DIR),
            gcov=Path(gcov) if (gcov := _read(config, "gcov", values.file)) is not None else None,
            archive=_read(config, "archive", values.archive),
            keyring=_read(config, "keyring", values.file),
            allow_splat=_patterns(config),
            strict=_flag(config, "strict"),
            offline=_flag(config, "offline"),
            keep=_flag(config, "keep"),
            until_failure=_flag(config, "until-failure"),
            save_state=_flag(config, "save-state"),
            vmcore=_flag(config, "vmcore"),
            gdb_wait=_flag(config, "gdb-wait"),
        )
    except SpecError as error:
        raise pytest.UsageError(str(error)) from None


def default_spec(options: Options) -> VMSpec:
    """Return the spec that options and ini give."""
    from pytest_kvm.spec.vm import VMSpec

    return VMSpec(accel=options.accel, image=options.image, start="auto" if options.start == BOTH else options.start)


def _read(config: pytest.Config, name: str, read: Callable[[str, Path], Value]) -> Value | None:
    """Return the option, else its ini twin, as ``read(text, folder)`` makes it; None: neither is given."""
    text, subject, folder = config.getoption(ini_name(name)), f"--kvm-{name}=", config.invocation_params.dir
    if text is None:
        text, subject, folder = config.getini(ini_name(name)), f"ini option {ini_name(name)} = ", config.rootpath
    if text is None or text == "":
        return None
    from pytest_kvm.spec.wording import about  # only given options are checked

    with about(f"{subject}{text}", keyword=name, value=text):
        return read(str(text), folder)


def _several(config: pytest.Config, name: str, read: Callable[[str, Path], Sequence[str]]) -> list[str]:
    """Return the values of an option that may be repeated, else those of its ini twin."""
    from pytest_kvm.spec.wording import about

    given, subject, folder = config.getoption(ini_name(name)), f"--kvm-{name}=", config.invocation_params.dir
    if not given:
        given, subject, folder = config.getini(ini_name(name)), f"ini option {ini_name(name)} = ", config.rootpath
    found: list[str] = []
    for text in given:
        with about(f"{subject}{text}", keyword=name, value=text):
            found += read(text, folder)
    return found


def _patterns(config: pytest.Config) -> list[re.Pattern[str]]:
    """Return the patterns of the option and of its ini twin: they accumulate."""
    found: list[re.Pattern[str]] = []
    for subject, given in (
        ("--kvm-allow-splat", config.getoption("kvm_allow_splat")),
        ("ini option kvm_allow_splat", config.getini("kvm_allow_splat")),
    ):
        found += [splat_pattern(pattern, subject) for pattern in given]
    return found


def splat_pattern(pattern: str | re.Pattern[str], subject: str) -> re.Pattern[str]:
    """Return a pattern that is searched in a splat's lines; raises SpecError when it is none."""
    try:
        return re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    except re.error as error:
        raise SpecError(f"{subject}: {pattern!r} is not a regular expression: {error}") from None


def _flag(config: pytest.Config, name: str) -> bool:
    given = config.getoption(ini_name(name))
    try:
        return bool(config.getini(ini_name(name)) if given is None else given)
    except (ValueError, pytest.UsageError) as error:
        raise SpecError(f"ini option {ini_name(name)}: expected true or false; {error}", keyword=name) from None
