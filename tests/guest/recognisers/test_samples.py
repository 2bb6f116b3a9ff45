"""Every sample is recognised, however it arrives and whatever stands around it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvm.guest.recognisers.scanner import Scanner
from pytest_kvm.guest.recognisers.table import RECOGNISERS
from tests.guest.recognisers.innocent import BOOT, PROGRAMS
from tests.guest.recognisers.samples import SAMPLES, Sample, printed, scan, summary

_TIME = re.compile(r"^(\[ *\d+\.\d{6}\])(?:\[ *[TC]\d+\])? ?")

each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=str)
each_timed_sample = pytest.mark.parametrize("sample", [each for each in SAMPLES if each.timed], ids=str)


@each_sample
def test_it_is_recognised(sample: Sample) -> None:
    assert summary(scan(printed(sample.lines))) == sample.reports


@each_sample
def test_no_line_of_it_is_lost(sample: Sample) -> None:
    *others, last = scan(printed(sample.lines))
    told = {line for splat in [*others, last] for line in splat.text.splitlines()}
    assert [line for line in sample.lines if line.rstrip() not in told and _TIME.sub("", line).strip()] == []
    assert last.text.splitlines()[-1] == sample.lines[-1].rstrip()


@each_sample
def test_line_ends_do_not_matter(sample: Sample) -> None:
    assert scan(printed(sample.lines, "\n")) == scan(printed(sample.lines)) == scan(printed(sample.lines, "\r\r\n"))


@each_sample
def test_byte_by_byte(sample: Sample) -> None:
    data = printed(sample.lines)
    assert scan(*(data[at : at + 1] for at in range(len(data)))) == scan(data)


@each_sample
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_in_pieces(sample: Sample, data: st.DataObject) -> None:
    text = printed([*BOOT, *sample.lines])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert scan(*pieces) == scan(text)


@each_sample
def test_in_the_middle_of_a_boot(sample: Sample) -> None:
    assert scan(printed([*BOOT, *sample.lines, *BOOT])) == scan(printed(sample.lines))


@each_sample
def test_with_lines_of_programs_in_between(sample: Sample) -> None:
    mixed = [line for pair in zip(sample.lines, PROGRAMS * len(sample.lines), strict=False) for line in pair]
    found = scan(printed(mixed))
    assert summary(found) == sample.reports
    if sample.timed:
        assert found == scan(printed(sample.lines))


@each_sample
def test_with_messages_of_the_kernel_in_between(sample: Sample) -> None:
    mixed = [text for at, line in enumerate(sample.lines) for text in [line, BOOT[at % (len(BOOT) - 1) + 1]]]
    assert summary(scan(printed(mixed))) == sample.reports


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each.name != "bug-other"], ids=str)  # needs its time
def test_without_times(sample: Sample) -> None:
    bare = [_TIME.sub("", line) for line in sample.lines]
    assert summary(scan(printed(bare))) == sample.reports


@each_timed_sample
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<4>", ""),
        ("", "[    T1] "),
        ("", "[   C12] "),
        ("\x1b[31m", "\x1b[0m"),
        ("", "kernel: "),
        ("host kernel: ", ""),
    ],
)
def test_with_prefixes(sample: Sample, before: str, after: str) -> None:
    # A caller follows the time directly.
    space = "" if after.startswith("[ ") else " "
    dressed = [before + _TIME.sub(lambda time: f"{time[1]}{space}{after}", line) for line in sample.lines]
    assert summary(scan(printed(dressed))) == sample.reports


@each_sample
def test_behind_an_unfinished_line(sample: Sample) -> None:
    lines = [*sample.lines]
    lines[0] = "debian login: " + lines[0]
    found = scan(printed(lines))
    assert summary(found) == sample.reports
    assert found[0].text == scan(printed(sample.lines))[0].text


@each_timed_sample
def test_printed_again_it_is_not_new(sample: Sample) -> None:
    assert scan(printed([*sample.lines, "~ # dmesg", *BOOT, *sample.lines])) == scan(printed(sample.lines))


@each_sample
def test_it_is_pending_from_its_first_line_on(sample: Sample) -> None:
    scanner = Scanner()
    # A banner may stand in front.
    lines = sample.lines[1:] if sample.lines[0].endswith("====") else sample.lines
    done = scanner.feed(printed(lines[:1]))
    first = done[0] if done else scanner.pending
    assert first is not None
    assert first.fatal == sample.reports[0][2]


def test_every_row_of_the_tables_has_a_sample() -> None:
    lines = [_TIME.sub("", line) for sample in SAMPLES for line in sample.lines]
    assert [row.name for row in RECOGNISERS if not any(row.begins.match(line) for line in lines)] == []
