"""The balloon of real guests: what it takes, what it gives back, and what its driver tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_kvm import VM, BalloonTimeout, MachineError, SpecError, VirtioBalloon, WaitTimeout
from tests.host.contender import until

MIB = 1 << 20
_TOTAL = "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"


def total(vm: VM) -> int:
    """What the guest's kernel has, in MiB."""
    return int(vm.run(_TOTAL).stdout) >> 10


def test_set_and_restore(vm: VM) -> None:
    whole = total(vm)
    assert vm.balloon.actual == 256 * MIB
    vm.balloon.set("160M")
    assert vm.balloon.actual == 160 * MIB
    assert whole - total(vm) in (95, 96, 97)
    state = vm.snapshot()
    vm.balloon.set(256 * MIB)
    assert total(vm) == whole
    vm.restore(state)
    assert vm.balloon.actual == 160 * MIB
    assert vm.balloon.statistics().total_memory == int(vm.run(_TOTAL).stdout) << 10
    vm.balloon.set("200.5M")
    assert vm.balloon.actual == int(200.5 * MIB)


def test_statistics_are_fresh(vm: VM) -> None:
    balloon = vm.balloon
    before = balloon.statistics()
    vm.run("mount -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/file bs=1M count=64")
    after = balloon.statistics()
    assert before.free_memory is not None
    assert after.free_memory is not None
    assert 60 * MIB < before.free_memory - after.free_memory < 90 * MIB
    assert (after.swap_in, after.swap_out, after.htlb_pgfail) == (0, 0, 0)
    assert after.updated >= before.updated
    assert vm.qmp.execute("qom-get", {"path": balloon.path, "property": "guest-stats-polling-interval"}) == 0


@pytest.mark.slow
@pytest.mark.vm(machine="microvm")
def test_on_a_microvm(vm: VM) -> None:
    vm.balloon.set("200M")
    statistics = vm.balloon.statistics()
    assert statistics.total_memory == int(vm.run(_TOTAL).stdout) << 10


# Without deflate-on-oom, whatever this guest does next may kill all of its processes, and panics then.
@pytest.mark.vm(devices=[VirtioBalloon(properties={"deflate-on-oom": True})])
def test_a_guest_that_has_no_more_to_give(vm: VM) -> None:
    with pytest.raises(BalloonTimeout) as caught:
        vm.balloon.set("16M", timeout=5)
    actual = caught.value.actual
    assert 16 * MIB < actual < 200 * MIB
    assert caught.value.asked == 16 * MIB
    assert str(caught.value) == (
        f"VM 'vm': its guest's memory has come to {actual / MIB:.6g} MiB, not 16 MiB, within 5 s; it has no more to "
        "give"
    )
    until(lambda: vm.balloon.actual == 256 * MIB)
    vm.run("true")


def test_no_driver(vm: VM) -> None:
    balloon = vm.balloon
    vm.rmmod("virtio_balloon")
    with pytest.raises(BalloonTimeout) as caught:
        balloon.set("128M", timeout=0.5)
    assert str(caught.value) == (
        "VM 'vm': its guest's memory stays at 256 MiB, and does not come to 128 MiB, within 0.5 s; does its kernel "
        "have the driver, virtio_balloon?"
    )
    with pytest.raises(WaitTimeout) as silent:
        balloon.statistics(timeout=0.5)
    assert str(silent.value) == (
        "VM 'vm': its guest tells nothing about its memory, within 0.5 s; does its kernel have the driver, "
        "virtio_balloon?"
    )
    vm.modprobe("virtio_balloon")
    balloon.set("200M")
    assert balloon.statistics().free_memory


def test_what_cannot_be(vm: VM) -> None:
    with pytest.raises(SpecError) as caught:
        vm.balloon.set("1G")
    assert str(caught.value) == (
        "VM 'vm': balloon.set('1G'): the machine has 256 MiB, and a balloon only takes some of it"
    )
    with pytest.raises(SpecError, match="expected a size such as '512M'"):
        vm.balloon.set("much")
    vm.pause()
    for asked in (lambda: vm.balloon.set("200M"), vm.balloon.statistics):
        with pytest.raises(MachineError, match=r"VM 'vm' is paused: its guest cannot answer; vm\.resume\(\) lets it"):
            asked()


def test_a_guest_that_ends(vm: VM) -> None:
    balloon = vm.balloon
    vm.rmmod("virtio_balloon")
    with vm.expect_panic("sysrq"):
        vm.popen("sleep 0.3; echo c >/proc/sysrq-trigger")
        with pytest.raises(MachineError, match="panicked"):
            balloon.set("128M", timeout=60)


@pytest.mark.vm(image=None)
def test_no_balloon(vm: VM) -> None:
    with pytest.raises(SpecError) as caught:
        _ = vm.balloon
    assert str(caught.value) == (
        "VM 'vm' has no balloon; every machine with an image has one, unless extras= leaves it out, and "
        "devices=[VirtioBalloon()] adds one"
    )


def resident(vm: VM) -> int:
    """What QEMU has of the host's memory for the guest's, in MiB."""
    found = re.search(r"^Rss: *(\d+) kB", Path(f"/proc/{vm.pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) >> 10


@pytest.mark.vm(devices=[VirtioBalloon(id="b", properties={"deflate-on-oom": True, "free-page-reporting": True})])
def test_what_the_guest_frees_is_free_on_the_host(vm: VM) -> None:
    assert vm.started is not None
    assert vm.started.reason == (
        "free-page-reporting: a clone maps a file that others map, too, and gives nothing of it back to the host"
    )
    vm.run("mount -t tmpfs -o size=200M none /mnt && dd if=/dev/zero of=/mnt/file bs=1M count=100")
    full = resident(vm)
    vm.run("rm /mnt/file")
    # The guest's kernel reports what has been free for two seconds (mm/page_reporting.c).
    until(lambda: resident(vm) < full - 60)
    # A guest that would run out of memory gets some back, and nobody is killed.
    vm.balloon.set("128M")
    vm.run("dd if=/dev/zero of=/dev/null bs=80M count=1")
    assert vm.balloon.actual > 160 * MIB
    assert "oom_kill 0\n" in vm.run("cat /proc/vmstat").stdout


def test_without_deflate_on_oom_somebody_is_killed(vm: VM) -> None:
    vm.balloon.set("128M")
    with vm.expect_splat("Out of memory"):
        assert vm.run("dd if=/dev/zero of=/dev/null bs=80M count=1", check=False).returncode == 128 + 9
    assert vm.balloon.actual == 128 * MIB
