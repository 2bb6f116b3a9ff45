"""The scanner, with what it is fed and when."""

from __future__ import annotations

from pytest_kvm.guest.recognisers.scanner import Scanner

PANIC = b"[    2.500000] Kernel panic - not syncing: sysrq triggered crash\r\n"


def test_a_panic_is_pending_with_its_first_line() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC[:-1]) == []
    assert scanner.pending is None
    assert scanner.feed(PANIC[-1:]) == []
    assert scanner.pending is not None
    assert (scanner.pending.kind, scanner.pending.title, scanner.pending.fatal) == (
        "panic",
        "panic: sysrq triggered crash",
        True,
    )
    assert [splat.text for splat in scanner.finish()] == [PANIC.decode().rstrip()]
    assert scanner.pending is None
