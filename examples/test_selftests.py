"""A test program with cases of its own: each is a subtest."""

from __future__ import annotations

from pathlib import Path

from pytest_kvm import VM

# As kernel selftests write it: https://docs.kernel.org/dev-tools/ktap.html
PROGRAM = r"""#!/bin/sh
echo "KTAP version 1"
echo "1..3"
test -c /dev/null && echo "ok 1 null" || echo "not ok 1 null"
test -c /dev/zero && echo "ok 2 zero" || echo "not ok 2 zero"
test -e /dev/kvm && echo "ok 3 kvm" || echo "ok 3 kvm # SKIP this guest has none"
"""


def test_devices(vm: VM, tmp_path: Path) -> None:
    program = tmp_path / "devices.sh"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    result = vm.run_ktap(vm.bring(program))
    assert result["zero"].outcome.good
