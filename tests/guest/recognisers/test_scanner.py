"""The scanner, with what it is fed and when."""

from __future__ import annotations

from pytest_kvm.guest.recognisers.scanner import Scanner

PANIC = b"[    2.500000] Kernel panic - not syncing: sysrq triggered crash\r\n"


def known(scanner: Scanner) -> tuple[str, str, bool] | None:
    """What the scanner says of the report that has begun."""
    splat = scanner.pending
    return (splat.kind, splat.title, splat.fatal) if splat else None


def test_a_panic_is_pending_with_its_first_line() -> None:
    scanner = Scanner()
    assert scanner.feed(PANIC[:-1]) == []
    assert known(scanner) is None
    assert scanner.feed(PANIC[-1:]) == []
    assert known(scanner) == ("panic", "panic: sysrq triggered crash", True)
    assert [splat.text for splat in scanner.finish()] == [PANIC.decode().rstrip()]
    assert known(scanner) is None
