"""Kernel selftests of the host in the guest: their files, and what these need to run there."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pytest_kvm.errors import SpecError
from pytest_kvm.kernel.guest import Guest
from pytest_kvm.kernel.kselftest.installation import HELPERS, LIST, SCRIPT, Installation
from pytest_kvm.kernel.kselftest.selection import Selected
from pytest_kvm.kernel.local import archived, copy, is_elf, libraries_of

_FOLDER = "/tmp/pytest-kvm-kselftest"
# In the copy: libraries, the marks of what is there already, and our timeout.
LIBRARIES = ".pytest-kvm/lib"
MARKS = ".pytest-kvm/there"
TIMEOUT = ".pytest-kvm/timeout"
BASH = "/bin/bash"
# Scripts of one collection source such files of others.
_SHARED = "*lib*"
_DIRECTORIES = "/lib /lib64 /usr/lib /usr/lib64 /lib/*-linux-gnu /usr/lib/*-linux-gnu"
# busybox's timeout knows no --foreground, ends one process only, and with the signal's status; runners look for 124.
_TIMEOUT = b"""\
#!/bin/sh
if [ "$1" = --foreground ]; then  # the one inside it does all
  shift 2
  exec "$@"
fi
limit=${1%%.*}
shift
[ "$limit" = 0 ] && exec "$@"
now() { read up rest </proc/uptime; echo ${up%.*}; }
began=$(now)
setsid "$@" &
program=$!
setsid sh -c 'sleep $1; kill -TERM -$2; sleep 5; kill -KILL -$2' sh $limit $program >/dev/null 2>&1 &
watcher=$!
wait $program
status=$?
kill -KILL -$watcher
if [ $status = 143 ] || [ $status = 137 ]; then
  [ $(($(now) - began)) -ge $((limit - 1)) ] && exit 124
fi
exit $status
"""


def brought(vm: Guest, installation: Installation, selected: Sequence[Selected]) -> str:
    """Return the folder of the guest with a copy of what is selected; what is there already is not copied again.

    Raises SpecError for what cannot be read.
    """
    assert installation.host is not None
    digest = hashlib.sha256(installation.folder.encode()).hexdigest()[:8]
    folder = f"{_FOLDER}-{digest}"
    there = vm.run(f"ls {folder}/{MARKS} 2>/dev/null", check=False).stdout.split()
    missing = [each.collection for each in selected if _mark(each.collection) not in there]
    if missing:
        host = installation.host
        files = _files(host, missing, installation.tests)
        # The marks come last: a copy that was interrupted has none.
        marks = {f"{MARKS}/{_mark(collection)}": b"" for collection in missing}
        copy(vm, archived({**files, **_needed(vm, host, files), TIMEOUT: _TIMEOUT, **marks}), folder)
        vm.run(_SETTLE, cwd=folder)
    return folder


def _mark(collection: str) -> str:
    return collection.replace("/", ":")


def _files(host: Path, collections: Sequence[str], known: dict[str, tuple[str, ...]]) -> dict[str, Path | bytes]:
    """Return the files of these collections, and what is nobody's; of the others only what scripts share."""
    files: dict[str, Path | bytes] = {}
    try:
        for path in sorted(host.rglob("*")):
            name = path.relative_to(host)
            owner = next((str(parent) for parent in name.parents if str(parent) in known), None)
            wanted = owner is None or owner in collections or any(part.match(_SHARED) for part in _parts(name))
            if (path.is_file() or path.is_symlink()) and wanted:
                files[str(name)] = path
    except OSError as error:
        raise SpecError(f"{host} cannot be copied to the guest: {error}", value=host) from error
    return files


def _parts(name: Path) -> Iterator[PurePosixPath]:
    return (PurePosixPath(part) for part in name.parts)


def _needed(vm: Guest, host: Path, files: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return the libraries that the guest lacks for these programs, and bash if scripts are for it.

    Libraries of the guest's own go before the host's: they fit its linker.
    """
    needed: dict[str, Path] = {}
    programs = [path for path in files.values() if isinstance(path, Path) and path.is_file()]
    bash = _asks_for_bash(programs) and shutil.which("bash")
    if bash and vm.run(f"command -v bash || test -e {BASH}", check=False).returncode:
        programs.append(Path(bash))
        needed[BASH.rpartition("/")[2]] = Path(bash)
    for path in programs:
        with contextlib.suppress(SpecError):  # its own case tells what it lacks
            if is_elf(path):
                needed.update(libraries_of(path))
    there = set(vm.run(f"ls {_DIRECTORIES} 2>/dev/null", check=False).stdout.split())
    return {f"{LIBRARIES}/{name}": file for name, file in needed.items() if name not in there}


def _asks_for_bash(programs: Sequence[Path]) -> bool:
    for path in programs:
        with path.open("rb") as file:
            first = file.readline(200)
        if first.startswith(b"#!") and b"bash" in first:
            return True
    return False


# Once it is all there: where the kernel looks for a linker and scripts for bash, and what runner.sh takes for granted.
_SETTLE = f"""
set -e
for linker in {LIBRARIES}/ld-*.so.* {LIBRARIES}/ld.so.*; do
  test -e "$linker" || continue
  case $linker in *x86-64*) place=/lib64 ;; *) place=/lib ;; esac
  mkdir -p $place
  cp "$linker" $place
done
if test -e {LIBRARIES}/bash; then cp {LIBRARIES}/bash {BASH}; fi
if /usr/bin/timeout --foreground 9 true 2>/dev/null; then :; else
  sed "s#/usr/bin/timeout#$PWD/{TIMEOUT}#g" {HELPERS}/runner.sh >.pytest-kvm/runner.sh
  cat .pytest-kvm/runner.sh >{HELPERS}/runner.sh
fi
test -x {SCRIPT} -a -r {LIST}
"""
