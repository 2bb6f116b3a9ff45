"""Object files with debug information, as small as they can be: a kernel and a module, in all but what they do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pytest_kvm.images.kernels.source import Kernel

RELEASE = "9.9.9-tests"
VERSION = "#7 SMP Sun Nov 29 10:00:00 UTC 2026"

_BANNER = """
const char banner[] = "Linux version {release} (me@here) (gcc 12) {version}\\n";
extern int twice(int), other(int);
int kernel_init(int value) {{ return value; }}
void _start(void) {{ kernel_init(twice(banner[0]) + other(banner[1])); }}
"""
CORE = """
static inline __attribute__((always_inline)) int inner(volatile int *value)
{
	return *value; /* inlined */
}
__attribute__((noinline)) static int twin(int value) { return value + 1; /* small */ }
__attribute__((noinline)) static int same(int value) { return value + 3; /* one */ }
__attribute__((noinline)) static void note(int value) { asm volatile("" : : "r"(value)); }
volatile int outside;
int twice(int value)
{
	note(value); /* call */
	return twin(value) + same(value) + inner(&outside); /* outer */
}
"""
OTHER = """
__attribute__((noinline)) static int twin(int value)
{
	return value * value * value - 77777 * value; /* large */
}
__attribute__((noinline)) static int same(int value) { return value + 5; /* two */ }
int other(int value) { return twin(value) + same(value); }
"""
MODULE = """
__attribute__((noinline, section(".init.text"))) int faulty_init(int value) { return value - 1; /* init */ }
__attribute__((noinline)) int fault(int *value)
{
	return *value; /* fault */
}
int last(int value) { return value; }
"""
_C = (
    "gcc",
    "-g",
    "-O1",
    "-fno-pie",
    "-ffreestanding",
    "-fno-asynchronous-unwind-tables",
    "-fno-ipa-icf",
    "-fno-ipa-cp",
)


def line(source: str, comment: str) -> int:
    """Return the number of the line with this comment."""
    return 1 + next(number for number, each in enumerate(source.splitlines()) if f"/* {comment} */" in each)


def make_vmlinux(tree: Path, *, version: str = VERSION, debug: str = "-g") -> Path:
    """Build a kernel in a tree, which has its sources in folders; return the file."""
    texts = {
        "init/main.c": _BANNER.format(release=RELEASE, version=version),
        "kernel/core.c": CORE,
        "lib/other.c": OTHER,
    }
    for name, text in texts.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    options = ("-fno-inline-small-functions", debug, "-nostdlib", "-static", "-no-pie", "-o", "vmlinux")
    subprocess.run([*_C, *options, *texts], cwd=tree, check=True)
    return tree / "vmlinux"


def make_module(folder: Path, name: str = "faulty") -> Path:
    """Build a module in a folder, with a build ID; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.c").write_text(MODULE)
    subprocess.run([*_C, "-c", f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)
    subprocess.run(["ld", "-r", "--build-id", f"{name}.o", "-o", f"{name}.ko"], cwd=folder, check=True)
    return folder / f"{name}.ko"


def kernel(*folders: Path, tree: Path | None = None) -> Kernel:
    """Return what is known of a kernel with files in these folders."""
    return Kernel(Path("/nonexistent"), RELEASE, VERSION, folders=folders, tree=tree)


def places(file: Path, function: str) -> list[tuple[int, int]]:
    """Return the address and size, as the kernel says it, of each function of this name in a file."""
    said = subprocess.run(["nm", "-n", file], check=True, capture_output=True, text=True).stdout
    rows = [(int(match[1], 16), match[2]) for match in re.finditer(r"^([0-9a-f]+) [tT] (\S+)$", said, re.MULTILINE)]
    return [
        (value, next((after for after, _ in rows if after > value), value + 0x1000) - value)
        for value, name in rows
        if name == function
    ]


def returns(file: Path, function: str, callee: str) -> int:
    """Return the offset, in a function, behind its call of another one."""
    said = subprocess.run(["objdump", "-d", file], check=True, capture_output=True, text=True).stdout
    start = places(file, function)[0][0]
    body = said[said.index(f"<{function}>:") :]
    match = re.search(rf"call .*<{callee}>\n *([0-9a-f]+):", body)
    assert match is not None, body
    return int(match[1], 16) - start
