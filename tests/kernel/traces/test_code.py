"""Bytes of code and their instructions."""

from __future__ import annotations

import subprocess

import pytest

from pytest_kvm.kernel.traces.code import disassembled
from pytest_kvm.waiting import Deadline


def instructions(*lines: str) -> dict[int, list[str]]:
    found = disassembled(list(lines), Deadline(20))
    return {number: [" ".join(text.split()) for text in texts] for number, texts in found.items()}


def test_the_marked_one_is_aligned() -> None:
    # Read from its first byte, "48 c7" and what follows would be one instruction, over the mark.
    found = instructions("RIP: 0010:f+0x1/0x2", "[    1.0] Code: c7 c0 01 00 00 <0f> 0b c3")
    assert found == {1: ["c7 c0 01 00 00 0f mov $0xf000001,%eax"]} or "=> 0f 0b ud2" in found[1]
    assert found[1][-2:] == ["=> 0f 0b ud2", "c3 ret"]
    # The very first.
    assert instructions("RIP: 0010:f+0x1/0x2", "Code: <0f> 0b c3") == {1: ["=> 0f 0b ud2", "c3 ret"]}


def test_what_is_shown_twice() -> None:
    lines = ("RIP: 0010:f+0x1/0x2", "Code: 90 <0f> 0b", "RIP: 0010:f+0x1/0x2", "Code: 90 <0f> 0b")
    assert instructions(*lines) == {1: ["90 nop", "=> 0f 0b ud2"]}


def test_32_bits() -> None:
    assert instructions("EIP: f+0x1/0x2", "Code: 40 <0f> 0b") == {1: ["40 inc %eax", "=> 0f 0b ud2"]}
    assert instructions("RIP: 0010:f+0x1/0x2", "Code: 50 <0f> 0b") == {1: ["50 push %rax", "=> 0f 0b ud2"]}


@pytest.mark.parametrize(
    "lines",
    [
        ("RIP: 0033:0x4ae3f7", "Code: 90 <0f> 0b"),
        ("Code: 90 <0f> 0b",),
        ("RIP: 0010:f+0x1/0x2", "Code: Unable to access opcode bytes at 0xffffffffc02d9feb."),
        ("RIP: 0010:f+0x1/0x2", "Code: Bad RIP value."),
        ("RIP: 0010:f+0x1/0x2", "Code:"),
        ("RIP: 0010:f+0x1/0x2", "Code: 90 90"),
        ("RIP: 0010:f+0x1/0x2", "Code: 9 <0f> 0b"),
        ("RIP: 0010:f+0x1/0x2", "Code: 90 <0f 0b"),
        ("RIP: 0010:f+0x1/0x2", "Code: 90 0<f> 0b"),
        ("RIP: 0010:f+0x1/0x2", "Code: <>"),
        ("RIP: 0010:f+0x1/0x2", f"Code: {'0' * 60000}"),
        ("RIP: 0010:f+0x1/0x2", f"Code: {'00 ' * 20000}<"),
        ("pc : f+0x1/0x2", "Code: 90 <0f> 0b"),
        ("PC is at f+0x1/0x2", "Code: e24cb004 e52de004 (e5932e30)"),
    ],
    ids=[
        *("user space", "of nobody", "not read", "bad", "empty", "no mark", "half a byte", "half a mark"),
        *("a mark within", "nothing", "one word", "many", "other words", "other architecture"),
    ],
)
def test_what_is_left_alone(lines: tuple[str, ...]) -> None:
    assert not any(instructions(*lines).values())


def test_what_objdump_may_not_know() -> None:
    """arm64's are shown where it is built for all architectures."""
    knows = "aarch64" in subprocess.run(["objdump", "--info"], check=True, capture_output=True, text=True).stdout
    found = instructions("pc : f+0x1/0x2", "Code: 52800021 (b9000001)")
    assert found == ({1: ["52800021 mov w1, #0x1", "=> b9000001 str w1, [x0]"]} if knows else {1: []})
