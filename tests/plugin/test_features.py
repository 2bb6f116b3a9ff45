"""The marker vm_features."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Scene
from tests.sessions import NO_BUDGET

MATRIX = """
import pytest
from pytest_kvm import Drive

pytestmark = pytest.mark.vm(properties={"net0": {"csum": False}})

@pytest.mark.vm_features("net0", ["packed=on", {"event_idx": False, "mq": True}, ""])
def test_net(vm):
    negotiated = vm.virtio("net0").negotiated
    assert "VIRTIO_NET_F_CSUM" not in negotiated  # the marker adds to what was declared
    assert ("VIRTIO_F_RING_PACKED" in negotiated) == (vm.spec.properties["net0"].get("packed", False))

@pytest.mark.vm_features("net0", ["ctrl_rx_extra=on"])
def test_not_taken(vm): ...

@pytest.mark.vm_features("net0", ["ctrl_rx_extra=on"], untaken="ctrl_rx_extra")
def test_known_not_to_be_taken(vm): ...

@pytest.mark.vm("a")
@pytest.mark.vm("b")
@pytest.mark.vm_features("net0", ["mrg_rxbuf=off"], vm="b")
def test_one_of_two(vms):
    assert "VIRTIO_NET_F_MRG_RXBUF" in vms["a"].virtio("net0").negotiated
"""
WRONG = """
import pytest

@pytest.mark.vm_features("net0")
def test_no_list(vm): ...

@pytest.mark.vm_features("net0", "packed=on")
def test_a_text(vm): ...

@pytest.mark.vm_features("net0", [3])
def test_a_number(vm): ...

@pytest.mark.vm_features(3, ["packed=on"])
def test_no_id(vm): ...
"""


def test_matrix(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MATRIX)
    result = pytester.runpytest("-v", "-rE", *NO_BUDGET)
    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_net[[]net0-packed=on[]] PASSED*",
            "*::test_net[[]net0-event_idx=off,mq=on[]] PASSED*",
            "*::test_net[[]net0-defaults[]] PASSED*",
            "*::test_not_taken[[]net0-ctrl_rx_extra=on[]] ERROR*",
            "*NegotiationError: VM 'vm': 'net0' (virtio-net, driver virtio_net) with ctrl_rx_extra=on is not what it*",
            "  ctrl_rx_extra=on: VIRTIO_NET_F_CTRL_RX_EXTRA is offered, and the driver did not take it",
        ]
    )


def test_wrong(scene: Scene) -> None:
    result = scene(WRONG).runpytest()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "*vm_features: expected the id of a device and a list of combinations, *, got vm_features('net0')",
            "*vm_features('net0', 'packed=on'): expected a list of combinations such as 'packed=on,event_idx=off' or *",
            "*vm_features('net0', [[]3[]]): expected properties such as 'packed=on,event_idx=off' or {'packed': True}",
            "*vm_features(3, …): expected the id of a device such as 'net0'",
        ]
    )
