"""What there is for other networks than QEMU's own."""

from __future__ import annotations

import pytest

from tests.cli.hosts import Host
from tests.qemu.fakes import program


@pytest.mark.parametrize(
    ("mode", "bridges", "fix"),
    [
        (0o4755, "# comment\nallow virbr0\n", ""),
        (0o4755, "include /etc/qemu/more.conf\n", ""),
        (0o4755, "deny all\n", "echo 'allow BRIDGE' | sudo tee -a {conf}"),
        (0o4755, None, "echo 'allow BRIDGE' | sudo tee -a {conf}"),
        (0o755, "allow all\n", "sudo chmod u+s {helper}"),
    ],
)
def test_the_bridge_helper(
    mode: int, bridges: str | None, fix: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_kvm.cli.checks.network.os.geteuid", lambda: 1000)
    host.put_qemu()
    helper = program(host.root / "helpers" / "qemu-bridge-helper", "")
    helper.chmod(mode)
    conf = host.root / "bridge.conf"
    if bridges is not None:
        conf.write_text(bridges)
    row = host.rows()["bridge-helper"]
    assert (row["state"], row["fix"]) == ("broken" if fix else "ok", fix.format(conf=conf, helper=helper))


def test_network_namespaces(host: Host) -> None:
    host.put_qemu()
    host.put("unshare", "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1")
    row = host.rows()["namespaces"]
    assert (row["state"], row["text"]) == ("missing", "unshare: unshare failed: Operation not permitted")
    assert "apparmor_restrict_unprivileged_userns" in row["fix"]
    host.put("unshare", f'echo "$*" >>{host.log}')
    assert host.rows()["namespaces"]["state"] == "ok"
    assert host.told() == ["--user --map-root-user --net true"]


@pytest.mark.parametrize(("capabilities", "state"), [("0000000000001000", "ok"), ("0000000000000fff", "missing")])
def test_the_privilege(capabilities: str, state: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    status = host.root / "status"
    status.write_text(f"Name:\tpytest\nCapPrm:\tffff\nCapEff:\t{capabilities}\n")
    monkeypatch.setattr("pytest_kvm.cli.checks.network._STATUS", status)
    host.put_qemu()
    assert host.rows()["net-admin"]["state"] == state
