"""What programs say of themselves."""

from __future__ import annotations

import pytest

from pytest_kvm.cli.checks.row import State
from tests.cli.hosts import Host


@pytest.mark.parametrize(
    ("script", "state", "text"),
    [
        ("echo tesseract 5.3.0; echo ' leptonica-1.82.0'", State.OK, "5.3.0 ({path})"),
        ("echo 'TPM emulator version 0.7.1, Copyright' >&2", State.OK, "0.7.1 ({path})"),
        ("echo unknown version; echo licence: GPL 3.0", State.OK, "{path}"),
        (
            "echo starting; echo libtpms.so.0: cannot open >&2; exit 127",
            State.BROKEN,
            "'--version' ends with status 127: ",
        ),
        ("exec sleep 60", State.BROKEN, "says no version within 1 s"),
    ],
)
def test_what_a_program_says(script: str, state: State, text: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.cli.checks.programs._PATIENCE", 1.0)
    monkeypatch.setenv("PATH", f"{host.bin}:/usr/bin:/bin")
    host.put_qemu()
    path = host.put("swtpm", script)
    row = host.rows()["swtpm"]
    assert row["state"] == state.value
    assert row["text"].startswith(text.format(path=path))


def test_a_program_more(host: Host) -> None:
    host.put_qemu()
    status, out, _ = host.doctor("--also", "gpg=gnupg", "--also", "env=coreutils")
    assert status == 1
    group = out.index("Asked for")
    assert out[group + 1 : group + 3] == [
        "  missing  gpg           not there (package gnupg)",
        f"  ok       env           {host.bin}/env",
    ]
    assert out[-2:] == [
        "No machine can run here: gpg is missing.",
        "pytest-kvm doctor --install installs what is missing.",
    ]


def test_also_takes_any_file_by_its_path(host: Host) -> None:
    host.put_qemu()
    (host.root / "there").touch()
    rows = host.rows("--also", f"{host.root}/there=one", "--also", f"{host.root}/away=other")
    assert rows[f"{host.root}/there"]["state"] == "ok"
    assert rows[f"{host.root}/away"]["state"] == "missing"
