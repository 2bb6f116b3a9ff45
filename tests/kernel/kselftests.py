"""An installation of kernel selftests as kbuild leaves it, with a runner of our own that says what its own does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# The interface of Linux 6.1's: -c, -t, -l; with "{more}", that of later ones.
_SCRIPT = """\
#!/bin/sh
BASE_DIR=$(realpath $(dirname $0))
cd $BASE_DIR
. ./kselftest/runner.sh
wanted=
while [ -n "$1" ]; do
  case "$1" in
    -c | --collection) wanted="$wanted $(grep "^$2:" kselftest-list.txt)"; shift 2 ;;
    -t | --test) wanted="$wanted $2"; shift 2 ;;
    {more}*) exit 1 ;;
  esac
done
for collection in $(printf '%s\\n' $wanted | cut -d: -f1 | uniq); do
  (cd $collection && run_many $(printf '%s\\n' $wanted | grep "^$collection:" | cut -d: -f2))
done
"""
_OVERRIDE = "-o | --override-timeout) override=$2; shift 2 ;;\n    "
_RUNNER = """\
run_many() {
  echo "TAP version 13"
  echo "1..$#"
  number=0
  for test in "$@"; do
    number=$((number + 1))
    limit=45
    [ ! -r settings ] || while read line; do eval "$line"; limit=${timeout:-$limit}; done <settings
    name="selftests: ${PWD#$BASE_DIR/}: $test"
    echo "# $name"
    { { /usr/bin/timeout --foreground "${override:-$limit}" /usr/bin/timeout "${override:-$limit}" ./$test 2>&1
        echo $? >/tmp/status; } | sed 's/^/# /'; } >>/dev/stdout
    status=$(cat /tmp/status)
    case $status in
      0) echo "ok $number $name" ;;
      4) echo "ok $number $name # SKIP" ;;
      124) echo "not ok $number $name # TIMEOUT ${override:-$limit} seconds" ;;
      *) echo "not ok $number $name # exit=$status" ;;
    esac
  done
}
"""


def install(
    folder: Path, tests: Mapping[str, str], *, settings: Mapping[str, str] | None = None, overrides: bool = False
) -> Path:
    """Install tests, scripts by ``collection:name``, with the settings of collections; return the folder."""
    files = {
        "run_kselftest.sh": _SCRIPT.replace("{more}", _OVERRIDE if overrides else ""),
        "kselftest/runner.sh": _RUNNER,
        "kselftest-list.txt": "".join(f"{test}\n" for test in tests),
        **{test.replace(":", "/"): text for test, text in tests.items()},
        **{f"{collection}/settings": text for collection, text in (settings or {}).items()},
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return folder
