"""The scanner, with what it is fed and when."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.guest.recognisers.report import MOST_BYTES
from pytest_kvm.guest.recognisers.scanner import MOST_LINE, Scanner
from tests.guest.recognisers.innocent import BOOTS
from tests.guest.recognisers.samples import SAMPLES, Sample, printed, scan, summary

OOPS = next(sample for sample in SAMPLES if sample.name == "oops-null-6.12")
FAULT = next(sample for sample in SAMPLES if sample.name == "oops-gpf-6.12")
WARNING = next(sample for sample in SAMPLES if sample.name == "warning-text-6.12")
PANIC = b"[    2.500000] Kernel panic - not syncing: sysrq triggered crash\r\n"
QUOTED = PANIC.partition(b"] ")[2]
TITLE = "panic: sysrq triggered crash"
BOOT = printed(BOOTS["debian-6.12"])


def known(scanner: Scanner) -> tuple[str, str, bool] | None:
    """What the scanner says of the report that has begun."""
    splat = scanner.pending
    return (splat.kind, splat.title, splat.fatal) if splat else None


def titles(*chunks: bytes) -> list[str]:
    return [splat.title for splat in scan(*chunks)]


def test_a_panic_is_pending_with_its_first_line() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC[:-1]) == []
    assert known(scanner) is None
    assert scanner.feed(PANIC[-1:]) == []
    assert known(scanner) == ("panic", TITLE, True)
    assert [splat.text for splat in scanner.finish()] == [PANIC.decode().rstrip()]
    assert known(scanner) is None


def test_a_title_grows_with_the_report() -> None:
    scanner = Scanner()
    seen = []
    for line in OOPS.lines[:-1]:
        assert scanner.feed(printed([line])) == []
        if known(scanner) not in seen:
            seen.append(known(scanner))
    assert [title for _, title, _ in filter(None, seen)] == [
        "BUG: unable to handle kernel NULL pointer dereference",
        "BUG: unable to handle kernel NULL pointer dereference in widget_null",
    ]


def test_what_is_cut_here_is_a_warning_until_it_says_more() -> None:
    scanner = Scanner()
    scanner.feed(b"[    1.000000] ------------[ cut here ]------------\r\n")
    assert known(scanner) == ("WARNING", "WARNING", False)
    scanner.feed(b"[    1.000000] widget 7 is bent\r\n")
    assert known(scanner) == ("WARNING", "WARNING: widget 7 is bent", False)
    scanner.feed(b"[    1.000000] kernel BUG at drivers/widget.c:12!\r\n")
    assert known(scanner) == ("BUG", "kernel BUG", False)


def test_the_same_warning_at_another_time_is_another_one() -> None:
    again = [line.replace("[    ", "[   1") for line in WARNING.lines]
    assert titles(printed(WARNING.lines), printed(again)) == [WARNING.reports[0][1]] * 2


@pytest.mark.parametrize("second", [WARNING, FAULT], ids=str)
@pytest.mark.parametrize("kept", [len(OOPS.lines), 20], ids=["whole", "cut off"])
def test_reports_directly_one_after_the_other(kept: int, second: Sample) -> None:
    data = printed([*OOPS.lines[:kept], *second.lines])
    assert summary(scan(data)) == OOPS.reports + second.reports


def test_a_panic_has_the_report_that_led_to_it() -> None:
    more = "[   12.000000] RIP: 0010:widget_null+0x10/0x20"
    oops, panic = scan(printed([*OOPS.lines, more]), PANIC)
    assert panic.text == "\n".join([oops.text, more, PANIC.decode().rstrip()])


def test_a_panic_long_after_a_report_has_nothing_of_it() -> None:
    later = printed([f"[   10.{at:06}] random: message {at}" for at in range(100)])
    assert scan(printed(OOPS.lines), later, PANIC)[-1].text == PANIC.decode().rstrip()


def test_panics_do_not_have_each_other() -> None:
    assert [splat.text.count("not syncing") for splat in scan(PANIC, PANIC.replace(b"2.5", b"3.5"))] == [1, 1]


def test_finish_takes_the_unfinished_line() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC.rstrip()) == []
    assert [splat.title for splat in scanner.finish()] == [TITLE]
    assert scanner.feed(b"\r\n") == []
    assert scanner.finish() == []


def test_finish_leaves_an_unfinished_line_that_says_nothing_yet() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC[:30]) == []
    assert scanner.finish() == []
    assert scanner.feed(PANIC[30:]) == []
    assert [splat.title for splat in scanner.finish()] == [TITLE]


@pytest.mark.parametrize("sample", [OOPS, WARNING], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 12, 30])
def test_what_still_comes_of_a_finished_report_is_not_another_one(sample: Sample, count: int) -> None:
    lines = sample.lines
    scanner = Scanner()
    assert scanner.feed(printed(lines[:count])) == []
    assert len(scanner.finish()) == 1
    assert scanner.feed(printed(lines[count:])) == []
    assert scanner.finish() == []


def test_a_new_report_after_a_finished_one() -> None:
    scanner = Scanner()
    scanner.feed(printed(OOPS.lines[:3]))
    assert len(scanner.finish()) == 1
    assert scanner.feed(printed(OOPS.lines[3:])) == []
    assert summary(scanner.feed(printed(WARNING.lines))) == WARNING.reports


def test_a_new_kernel_ends_the_report_of_the_one_before() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC) == []
    assert [splat.title for splat in scanner.feed(BOOT)] == [TITLE]
    assert known(scanner) is None


def test_a_new_machine_may_have_the_same_trouble() -> None:
    firmware = b"SeaBIOS (version 1.16.2-debian-1.16.2-1)\r\n"
    assert titles(PANIC, firmware, PANIC, firmware, PANIC) == [TITLE] * 3


def test_a_program_that_quotes_a_kernel_that_writes_times_is_not_believed() -> None:
    assert titles(BOOT, QUOTED, printed([line.partition("] ")[2] for line in OOPS.lines])) == []
    assert titles(BOOT, PANIC) == [TITLE]


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"Linux version 6.12.9 (gcc 12.2.0) #1\r\n",
        b"[    0.000000] Linux version 6.12.9 (gcc 12.2.0) #1\r\nLinux version 6.1.0 (gcc 12.2.0) #1\r\n",
        b"Linux version 6.12.9 (gcc 12.2.0) #1\r\n[    0.000000] Linux version 6.12.9 (gcc 12.2.0) #1\r\n",
    ],
    ids=["not seen to start", "without times", "another kernel", "its dmesg with times"],
)
def test_messages_without_a_time_are_believed_in_doubt(before: bytes) -> None:
    assert titles(before, QUOTED) == [TITLE]


@pytest.mark.parametrize(
    "before",
    [b"debian login: ", b"~ # ", b"user@host:~$ ", b"\x1b[1m> \x1b[0m", b"Nov 24 18:26:19 host kernel: ", b"<0>"],
)
def test_behind_a_prompt_without_a_time(before: bytes) -> None:
    assert titles(before + QUOTED) == [TITLE]


def test_an_echo_of_what_is_typed_is_not_believed() -> None:
    assert titles(b"~ # echo " + QUOTED, b'~ # grep "' + QUOTED) == []


def test_in_the_middle_of_a_message_that_is_printed_again() -> None:
    assert titles(b"[    0.100000] random: crng init do" + PANIC) == [TITLE]


def test_behind_what_was_written_over() -> None:
    assert titles(b"\r 10%\r 20%\r 30% " + PANIC) == [TITLE]
    assert titles(b"\r 10%\r" + QUOTED) == [TITLE]


def test_bytes_that_are_no_text() -> None:
    (splat,) = scan(b"\xff\xfe\x00" + PANIC.replace(b"sysrq", b"sys\xffrq"))
    assert splat.title == "panic: sys\\xffrq triggered crash"
    assert splat.text == "[    2.500000] Kernel panic - not syncing: sys\\xffrq triggered crash"


@pytest.mark.parametrize("length", [*range(MOST_LINE - 80, MOST_LINE + 4), 3 * MOST_LINE - 9, 1 << 20])
def test_behind_a_line_without_an_end(length: int) -> None:
    data = b"." * length + PANIC
    assert titles(data) == [TITLE]
    assert titles(data[: length + 20], data[length + 20 :]) == [TITLE]
    assert titles(*(data[at : at + 1000] for at in range(0, len(data), 1000))) == [TITLE]


def test_the_prompt_of_a_shell_that_waits() -> None:
    scanner = Scanner()
    assert scanner.feed(b"\r\n\r\nBusyBox v1.35.0 (Debian 1:1.35.0-4+b3) built-in shell (ash)\r\n\r\n(initram") == []
    assert [splat.title for splat in scanner.feed(b"fs) \x1b[6n")] == ["emergency shell: initramfs"]
    assert scanner.feed(b"ls\r\nbin dev\r\n(initramfs) ") == []
    assert scanner.feed(PANIC) == []
    assert known(scanner) == ("panic", TITLE, True)


def test_the_firmware_with_its_debug_output() -> None:
    # SeaBIOS 1.16.2, isa-debugcon at 0x402.
    data = (
        b"SeaBIOS (version 1.16.2-debian-1.16.2-1)\nBUILD: gcc: (Debian 12.2.0-14) 12.2.0\nRunning on QEMU (i440fx)\n"
        b"enter handle_19:\n  NULL\nBooting from Hard Disk...\nBoot failed: could not read the boot disk\n\n"
        b"enter handle_18:\n  NULL\nBooting from Floppy...\nBoot failed: could not read the boot disk\n\n"
        b"enter handle_18:\n  NULL\nNo bootable device.\n"
    )
    assert summary(Scanner().feed(data)) == [("firmware", "firmware: No bootable device", True)]


def test_the_firmware_that_will_try_again() -> None:
    assert scan(b"No bootable device.  Retrying in 3 seconds.\n") == []


def test_the_screen_of_ovmf() -> None:
    # OVMF 2022.11, serial console.
    data = (
        b"\x1b[2J\x1b[01;01H\x1b[01;01HUEFI Interactive Shell v2.2\r\nEDK II\r\nUEFI v2.70 (EDK II, 0x00010000)\r\n"
        b"\x1b[1m\x1b[33m\x1b[40mMapping table\x1b[0m\x1b[37m\x1b[40m\r\n\x1b[06;01H\x1b[1m\x1b[33m\x1b[40mShell> "
    )
    scanner = Scanner()
    assert scanner.feed(data) == []
    assert known(scanner) == ("firmware", "firmware: UEFI Interactive Shell", True)
    assert [splat.text for splat in scanner.finish()] == [
        "UEFI Interactive Shell v2.2\nEDK II\nUEFI v2.70 (EDK II, 0x00010000)\nMapping table\nShell>"
    ]


def test_a_report_without_an_end() -> None:
    lines = ["[    1.000000] BUG: sleeping function called from invalid context at kernel/widget.c:12"]
    lines += [f"[    1.{at:06}]  widget_{at}+0x12/0x40" for at in range(20_000)]
    scanner = Scanner()
    (splat,) = scanner.feed(printed(lines))
    assert splat.title == "BUG: sleeping function called from invalid context in widget_0"
    assert len(splat.text.splitlines()) == 400
    assert scanner.finish() == []


def test_a_report_of_long_lines() -> None:
    lines = ["[    1.000000] BUG: sleeping function called from invalid context at kernel/widget.c:12"]
    lines += [f"[    1.{at:06}] Code: " + "0f 0b " * 500 for at in range(100)]
    (splat,) = scan(printed(lines))
    assert 0.9 * MOST_BYTES < len(splat.text) <= MOST_BYTES


def test_a_report_that_programs_drown() -> None:
    scanner = Scanner()
    scanner.feed(printed(OOPS.lines[:10]))
    (splat,) = scanner.feed(b"y\r\n" * 1000)
    assert splat.text.splitlines() == OOPS.lines[:10]


@pytest.mark.parametrize(
    "piece",
    [
        b"y\r\n",
        b"\x00" * 4096,
        b"[1.000000] ",
        b"# BUG: ",
        b"\x1b[",
        b"\x1b]0;" + b"x" * 100,
        b"=" * 79 + b"\r\n",
        b"[    1.000000] ------------[ cut here ]------------\r\n",
        b"Kernel panic - not syncing: x\r\n",
        b"BUG: KASAN: use-after-free in x+0x1/0x2\r\n",
        b"WARNING: apt does not have a stable CLI interface. Use with caution in scripts.\r\n",
    ],
    ids=repr,
)
def test_a_flood_does_not_stay_in_memory(piece: bytes) -> None:
    chunk = (piece * (1 + (1 << 16) // len(piece)))[: 1 << 16]
    scanner = Scanner()
    scanner.feed(chunk)
    tracemalloc.start()
    for _ in range(4):
        scanner.feed(chunk)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 19


_PARTS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"\n", b"\r\n", b"\x1b[", b"[    1.000000] ", b"BUG: ", b"Kernel panic - not syncing: ", b"#" * 5000]
    ),
    st.sampled_from([line.encode() + b"\r\n" for sample in SAMPLES for line in sample.lines[:6]]),
)


@settings(deadline=None)
@given(st.lists(_PARTS, max_size=30), st.data())
def test_whatever_comes(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert scan(*pieces) == scan(text)
