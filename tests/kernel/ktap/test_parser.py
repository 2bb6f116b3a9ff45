"""KTAP and TAP of every kind, and what they come to."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvm.kernel.ktap.case import Case
from pytest_kvm.kernel.ktap.parser import Parser


def parse(text: str, *, lost: str = "", late: bool = False) -> tuple[list[Case], list[str]]:
    cases: list[Case] = []
    parser = Parser(cases.append)
    for line in dedent(text).lstrip("\n").splitlines(keepends=True):
        parser.feed(line)
    parser.finish(lost=lost, late=late)
    return cases, parser.problems


def shown(cases: list[Case]) -> list[str]:
    return [f"{case.outcome.value}: {case.name}{f' ({case.reason})' if case.reason else ''}" for case in cases]


GOOD = {
    "flat": (
        """
        KTAP version 1
        1..3
        ok 1 first
        not ok 2 second
        ok 3 - third
        """,
        ["passed: first", "failed: second", "passed: third"],
    ),
    "directives": (
        """
        KTAP version 1
        1..10
        ok 1 a # SKIP no hardware
        not ok 2 b # SKIP
        not ok 3 c # TODO write it
        ok 4 d # TODO done meanwhile
        not ok 5 e # XFAIL known
        ok 6 f # XFAIL the kernel's way
        not ok 7 g # TIMEOUT 45 seconds
        not ok 8 h # ERROR set-up
        not ok 9 i # exit=1
        ok 10 j # skipped: too small
        """,
        [
            "skipped: a (no hardware)",
            "skipped: b",
            "xfailed: c (write it)",
            "xpassed: d (done meanwhile)",
            "xfailed: e (known)",
            "xfailed: f (the kernel's way)",
            "timeout: g (45 seconds)",
            "error: h (set-up)",
            "failed: i (exit=1)",
            "skipped: j (too small)",
        ],
    ),
    "names with everything in them": (
        r"""
        TAP version 14
        1..5
        ok 1 - test #1
        ok 2 - a \# b \\ c
        ok 3 -
        ok 4
        ok 5 - ok 6 - not ok 7
        """,
        ["passed: test #1", "passed: a # b \\ c", "passed: 3", "passed: 4", "passed: ok 6 - not ok 7"],
    ),
    "TAP without numbers, and the plan at its end": (
        """
        TAP version 13
        ok - one
        not ok - two
        ok
        1..3
        """,
        ["passed: one", "failed: two", "passed: 3"],
    ),
    "without a version line": ("1..1\nok 1 x\n", ["passed: x"]),
    "nothing to run": ("TAP version 13\n1..0 # SKIP no such bus\n", ["skipped: all (no such bus)"]),
    "nothing to run, said by a number": ("TAP version 13\n1..0\n", ["skipped: all"]),
    "KUnit": (
        """
        KTAP version 1
        1..2
            KTAP version 1
            # Subtest: example
            # module: kunit_example_test
            1..3
            # example_simple_test: initializing
            ok 1 example_simple_test
            # example_skip_test: initializing
            ok 2 example_skip_test # SKIP this test should be skipped
                KTAP version 1
                # Subtest: example_params_test
            # example_params_test: initializing
                ok 1 example value 3
                ok 2 example value 2
                # example_params_test: pass:2 fail:0 skip:0 total:2
            ok 3 example_params_test
        # example: pass:2 fail:0 skip:1 total:3
        # Totals: pass:3 fail:0 skip:1 total:4
        ok 1 example
            KTAP version 1
            # Subtest: other
            1..1
            not ok 1 broken
        not ok 2 other
        """,
        [
            "passed: example/example_simple_test",
            "skipped: example/example_skip_test (this test should be skipped)",
            "passed: example/example_params_test/example value 3",
            "passed: example/example_params_test/example value 2",
            "failed: other/broken",
        ],
    ),
    "kselftest": (
        """
        TAP version 13
        1..3
        # selftests: net: tun
        # TAP version 13
        # 1..2
        # # Starting 2 tests from 1 test cases.
        # ok 1 tun.delete_detach_close
        # not ok 2 tun.reattach
        # # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:0 error:0
        not ok 1 selftests: net: tun # exit=1
        # selftests: net: rtnetlink.sh
        # PASS: policy routing
        # ok, that was it
        ok 2 selftests: net: rtnetlink.sh
        # selftests: net: gro.sh
        #
        not ok 3 selftests: net: gro.sh # TIMEOUT 45 seconds
        """,
        [
            "passed: selftests: net: tun/tun.delete_detach_close",
            "failed: selftests: net: tun/tun.reattach",
            "passed: selftests: net: rtnetlink.sh",
            "timeout: selftests: net: gro.sh (45 seconds)",
        ],
    ),
    "nested as the document has it": (
        """
        KTAP version 1
        1..3
          KTAP version 1
          1..1
            KTAP version 1
            1..2
            ok 1 test_1
            ok 2 test_2
          ok 1 test_1
        ok 1 test_1
          KTAP version 1
          1..2
          ok 1 test_1
          ok 2 test_2
        ok 2 test_2
        ok 3 test_3 # SKIP
        """,
        [
            "passed: 1/1/test_1",
            "passed: 1/1/test_2",
            "passed: 2/test_1",
            "passed: 2/test_2",
            "skipped: test_3",
        ],
    ),
    "TAP 14's subtests": (
        """
        TAP version 14
        1..1
        # Subtest: foo.tap
            1..2
            ok 1
            ok 2 - this passed
        ok 1 - foo.tap
        """,
        ["passed: foo.tap/1", "passed: foo.tap/this passed"],
    ),
    "what contains cases fails by itself": (
        """
        KTAP version 1
        1..2
          KTAP version 1
          1..1
          ok 1 inner
        not ok 1 outer
          KTAP version 1
          1..0 # SKIP
        ok 2 empty # SKIP nothing here
        """,
        ["passed: 1/inner", "failed: outer (it fails, and no case in it does)", "skipped: 2"],
    ),
    "printed by the kernel": (
        """
        [    1.000000] random: crng init done
        <6>[    1.100000] KTAP version 1
        [    1.100001][    T1] 1..1
        [    1.100002][    C0]     KTAP version 1
        [    1.100003]     # Subtest: list
        [    1.100004]     1..2
        [    1.200000]     ok 1 list_init
        [    1.300000] usb 1-1: ok 2 is no case of ours
        [    1.400000]     ok 2 list_add
        [    1.400001] # list: pass:2
        [    1.400002] ok 1 list
        """,
        ["passed: list/list_init", "passed: list/list_add"],
    ),
    "carriage returns": ("TAP version 13\r\n1..1\r\nok 1 x\r\n", ["passed: x"]),
    "much that is none of it": (
        """
        make: entering directory
        TAP version 13
        okay then
        not okay
        1..1 of them
        ok1 no
        1..1
        Bail in
        ok 1 x
        done
        """,
        ["passed: x"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD.keys())
def test_what_is_well_formed(text: str, expected: list[str]) -> None:
    cases, problems = parse(text)
    assert (shown(cases), problems) == (expected, [])


BAD: dict[str, tuple[str, list[str], list[str]]] = {
    "nothing": ("", [], ["it says no KTAP and no TAP"]),
    "something else": ("Segmentation fault\n", [], ["it says no KTAP and no TAP"]),
    "a version alone": ("KTAP version 1\n", [], ["there is no plan; 0 cases came"]),
    "no plan": ("KTAP version 1\nok 1 a\n", ["passed: a"], ["there is no plan; 1 cases came"]),
    "an unknown version": (
        "KTAP version 9\n1..1\nok 1 a\n",
        ["passed: a"],
        ["it speaks a version that is not known; what can be read is read"],
    ),
    "too few": (
        "KTAP version 1\n1..3\nok 1 a\n",
        ["passed: a", "not run: 2 (the program ended, before it)", "not run: 3 (the program ended, before it)"],
        ["the plan says 3 cases, and 1 came"],
    ),
    "too many": (
        "KTAP version 1\n1..1\nok 1 a\nok 2 b\n",
        ["passed: a", "passed: b"],
        ["the plan says 1 case, and 2 came"],
    ),
    "a number twice": (
        "KTAP version 1\n1..2\nok 1 a\nok 1 b\n",
        ["passed: a", "passed: b"],
        ["there are two cases of number 1"],
    ),
    "a number left out": (
        "KTAP version 1\n1..2\nok 1 a\nok 3 b\n",
        ["passed: a", "passed: b"],
        ["case 3 comes where 2 should"],
    ),
    "two plans": (
        "KTAP version 1\n1..1\nok 1 a\n1..2\n",
        ["passed: a"],
        ["a second plan, of 2, where there is one of 1"],
    ),
    "two version lines": (
        "KTAP version 1\n1..1\nok 1 a\nKTAP version 1\n",
        ["passed: a"],
        ["a second version line: several programs speak at once, or one after the other"],
    ),
    "bail out": (
        "TAP version 13\n1..3\nok 1 a\nBail out! no disk\nok 2 b\n",
        ["passed: a", "not run: 2 (it bailed out, before it)", "not run: 3 (it bailed out, before it)"],
        ["it bailed out: no disk"],
    ),
    "bail out before anything": ("Bail out!\n", [], ["it bailed out"]),
    "a nested test without its end": (
        """
        KTAP version 1
        1..2
          KTAP version 1
          # Subtest: suite
          1..3
          ok 1 a
        """,
        [
            "passed: suite/a",
            "not run: suite/2 (the program ended, before it)",
            "not run: suite/3 (the program ended, before it)",
            "not run: 2 (the program ended, before it)",
        ],
        ["suite: the plan says 3 cases, and 1 came", "the plan says 2 cases, and 0 came"],
    ),
    "a nested test that has too few": (
        """
        KTAP version 1
        1..1
          KTAP version 1
          # Subtest: suite
          1..2
          ok 1 a
        ok 1 suite
        """,
        ["passed: suite/a"],
        ["suite: the plan says 2 cases, and 1 came"],
    ),
    "without a number": (
        "KTAP version 1\n1..1\nok fine\n",
        ["not run: 1 (the program ended, before it)"],
        ["the plan says 1 case, and 0 came"],
    ),
}


@pytest.mark.parametrize(("text", "expected", "wrong"), BAD.values(), ids=BAD.keys())
def test_what_is_not(text: str, expected: list[str], wrong: list[str]) -> None:
    cases, problems = parse(text)
    assert (shown(cases), problems) == (expected, wrong)


LOST: dict[str, tuple[str, list[str], list[str]]] = {
    "before it said anything": ("", ["crashed: 1 (panic)"], []),
    "between two cases": (
        "KTAP version 1\n1..4\nok 1 a\n# working\n",
        ["passed: a", "crashed: 2 (panic)", "not run: 3 (panic, before it)", "not run: 4 (panic, before it)"],
        [],
    ),
    "without a plan": ("KTAP version 1\nok 1 a\n", ["passed: a", "crashed: 2 (panic)"], []),
    "in a nested case": (
        """
        KTAP version 1
        1..2
            KTAP version 1
            # Subtest: suite
            1..3
            ok 1 a
        """,
        [
            "passed: suite/a",
            "crashed: suite/2 (panic)",
            "not run: suite/3 (panic, before it)",
            "not run: 2 (panic, before it)",
        ],
        [],
    ),
    "behind the last nested case": (
        """
        KTAP version 1
        1..2
            KTAP version 1
            # Subtest: suite
            1..1
            ok 1 a
        """,
        ["passed: suite/a", "crashed: suite (panic)", "not run: 2 (panic, before it)"],
        [],
    ),
    "in a program that was announced": (
        "TAP version 13\n1..3\nok 1 selftests: mm: a\n# selftests: mm: b\n# here\n",
        ["passed: selftests: mm: a", "crashed: selftests: mm: b (panic)", "not run: 3 (panic, before it)"],
        [],
    ),
    "behind the last case": ("KTAP version 1\n1..1\nok 1 a\n", ["passed: a"], ["after its last case: panic"]),
}


@pytest.mark.parametrize(("text", "expected", "wrong"), LOST.values(), ids=LOST.keys())
def test_a_guest_that_is_lost(text: str, expected: list[str], wrong: list[str]) -> None:
    cases, problems = parse(text, lost="panic")
    assert (shown(cases), problems) == (expected, wrong)


def test_a_program_that_is_too_slow() -> None:
    cases, problems = parse("KTAP version 1\n1..2\nok 1 a\n", lost="it did not end within 5 s", late=True)
    assert shown(cases) == ["passed: a", "timeout: 2 (it did not end within 5 s)"]
    assert problems == []


def test_what_a_case_says_is_its_own() -> None:
    cases, _ = parse(
        """
        before
        TAP version 14
        1..3
        # one
        one.c: 7
        ok 1 one
          ---
          message: fine
          ok 2 is no case here
          ...
        # two
        not ok 2 two
        ok 3 three
        """
    )
    assert [case.log for case in cases] == [
        "before\n# one\none.c: 7\n  ---\n  message: fine\n  ok 2 is no case here\n  ...",
        "# two",
        "",
    ]


def test_a_case_that_says_much_keeps_its_end() -> None:
    lines = "".join(f"line {number}\n" for number in range(100_000))
    [case], _ = parse(f"KTAP version 1\n1..1\n{lines}ok 1 a\n")
    assert case.log.endswith("line 99998\nline 99999")
    assert len(case.log) <= 64 << 10


def test_a_message_of_the_kernel_in_the_middle_of_a_line() -> None:
    cases, problems = parse(
        """
        TAP version 13
        1..3
        ok 1 fi[    7.123456] usb 1-1: new device
        rst
        o[    7.200000][  T12] one
        [    7.200001] two
        k 2 second
        ok 3 third[    7.300000] three
        """
    )
    assert shown(cases) == ["passed: first", "passed: second", "passed: third"]
    assert problems == []
    assert "usb 1-1: new device" in cases[0].log


def test_seconds_are_those_between_results() -> None:
    now = iter(range(100))
    cases: list[Case] = []
    parser = Parser(cases.append, clock=lambda: float(next(now)))
    for line in ("KTAP version 1", "1..2", "ok 1 a", "ok 2 b"):
        parser.feed(line)
    parser.finish()
    assert all(case.seconds is not None and case.seconds > 0 for case in cases)


def test_cases_are_told_when_the_next_line_comes() -> None:
    cases: list[Case] = []
    parser = Parser(cases.append)
    for line in ("KTAP version 1", "1..2", "ok 1 a"):
        parser.feed(line)
    assert cases == []
    parser.feed("# b begins")
    assert shown(cases) == ["passed: a"]


def test_rubbish_without_end_takes_no_room() -> None:
    cases: list[Case] = []
    parser = Parser(cases.append)
    parser.feed("KTAP version 1")
    for depth in range(1000):
        parser.feed(" " * depth + "1..2")
    parser.finish()
    assert len(parser._levels) == 0
    assert len(parser.problems) <= 100
    assert len(cases) < 1000


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    *(
                        "KTAP version 1",
                        "TAP version 13",
                        "1..",
                        "ok ",
                        "not ok ",
                        "# ",
                        "  ",
                        "    ",
                        "1",
                        "2",
                        "name",
                    ),
                    *("# SKIP", "# Subtest: ", "Bail out!", "---", "...", "[    1.000000] ", "\\", "\x00", "é"),
                ]
            )
        ).map("".join)
        | st.text(),
        max_size=40,
    ),
    st.sampled_from(["", "panic"]),
)
def test_whatever_comes(lines: list[str], lost: str) -> None:
    cases: list[Case] = []
    parser = Parser(cases.append)
    for line in lines:
        parser.feed(line)
    parser.finish(lost=lost)
    assert parser._levels == []
    assert cases or parser.problems


def test_a_plan_of_any_number() -> None:
    cases, problems = parse("KTAP version 1\n1..999999999\nok 1 a\n", lost="panic")
    assert len(cases) == 1002
    assert problems == ["999998997 more did not run"]
