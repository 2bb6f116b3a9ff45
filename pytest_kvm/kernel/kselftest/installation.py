"""Where kernel selftests are: an installation on the host, or one in the guest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pytest_kvm.errors import MachineError, SpecError
from pytest_kvm.images.kernels.source import Kernel, folders_around
from pytest_kvm.kernel.guest import Guest
from pytest_kvm.kernel.kselftest.selection import read_list

SCRIPT = "run_kselftest.sh"
LIST = "kselftest-list.txt"
# What every installation has beside its collections.
HELPERS = "kselftest"
# Below a build tree: what "make -C tools/testing/selftests install" and "make kselftest-install" leave, the latter also
# with O=, and kselftest_install.sh.
IN_TREE = (
    "tools/testing/selftests/kselftest_install",
    "kselftest/kselftest_install",
    "kselftest_install",
)
# Where distributions and people put them.
IN_GUEST = (
    *("/usr/lib/kselftest", "/usr/lib/kselftests", "/usr/libexec/kselftest", "/usr/libexec/kselftests"),
    *("/opt/kselftest", "/opt/kselftests", "/opt/kselftest_install", "/kselftest"),
    *("/root/kselftest", "/root/kselftest_install"),
)
_HOW = "make -C tools/testing/selftests TARGETS=… install"


@dataclass(frozen=True)
class Installation:
    """A ``folder`` with the runner, the ``tests`` by their collections; ``host`` is the folder if it is on the host."""

    folder: str
    tests: dict[str, tuple[str, ...]]
    host: Path | None = None


def on_host(folder: Path) -> Installation:
    """Return the installation in a folder of the host. Raises SpecError if it is none."""
    if (folder / "lib.mk").is_file():
        raise SpecError(
            f"vm.kselftest(path={str(folder)!r}): these are the sources; {_HOW} makes kselftest_install", value=folder
        )
    missing = [name for name in (SCRIPT, LIST) if not (folder / name).is_file()]
    if missing:
        raise SpecError(
            f"vm.kselftest(path={str(folder)!r}): expected what {_HOW} leaves in kselftest_install; {missing[0]} is not"
            " there",
            value=folder,
        )
    try:
        tests = read_list((folder / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"vm.kselftest(path={str(folder)!r}): {LIST}: {error}", value=folder) from error
    return Installation(os.path.abspath(folder), tests, folder.absolute())


def find(vm: Guest, kernel: Kernel | None) -> Installation:
    """Return the installation in the kernel's build tree, else the one in the guest. Raises MachineError."""
    folders = folders_around(kernel.file) if kernel is not None else []
    for folder in folders:
        for name in IN_TREE:
            if (folder / name / LIST).is_file():
                return on_host(folder / name)
    words = " ".join(IN_GUEST)
    done = vm.run(
        f"for folder in {words}; do test -f $folder/{LIST} && test -f $folder/{SCRIPT} || continue;"
        f" echo $folder && cat $folder/{LIST}; exit; done; exit 1",
        check=False,
    )
    if done.returncode:
        tree = " or in the kernel's build tree" if folders else ""
        raise MachineError(
            f"VM {vm.name!r}: there are no kernel selftests in the guest ({', '.join(IN_GUEST[:2])}, …){tree};"
            f" name a folder that {_HOW} has made: vm.kselftest(…, path=…)"
        )
    folder_there, _, text = done.stdout.partition("\n")
    return Installation(folder_there, read_list(text))
