"""User networks: forwards, and what the guest does not reach."""

from __future__ import annotations

import socket

import pytest

from pytest_kvm import VM, Nic, SpecError


@pytest.mark.vm(hostfwd=[8080, "tcp::-:8081", "udp::-:5353"])
def test_forwards(vm: VM) -> None:
    host, port = vm.forwarded(8080)
    assert host == "127.0.0.1"
    assert port != vm.forwarded(8081)[1]
    server = vm.popen("nc -l -p 8080 -e cat")
    vm.run("until netstat -ltn | grep -q :8080; do usleep 10000; done")
    with socket.create_connection((host, port), timeout=30) as client:
        client.sendall(b"there and back")
        assert client.recv(100) == b"there and back"
    assert server.wait(timeout=30) == 0
    with pytest.raises(SpecError) as error:
        vm.forwarded(22)
    assert str(error.value) == (
        "VM 'vm': guest port 22/tcp is not forwarded (forwarded: 8080/tcp, 8081/tcp, 5353/udp); "
        "declare vm(hostfwd=[22])"
    )


@pytest.mark.vm(hostfwd=["udp::-:5353"])
def test_udp(vm: VM) -> None:
    count = "awk '/^Udp: [0-9]/ {print $3}' /proc/net/snmp"  # datagrams to ports where nobody listens
    before = int(vm.run(count).stdout)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"datagram", vm.forwarded(5353, "udp"))
    vm.run(f"until [ $({count}) -gt {before} ]; do usleep 10000; done")


def test_forward_at_run_time(shared: VM) -> None:
    assert shared.forward(9999) == shared.forward(9999)


def test_hermetic_by_default(shared: VM) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # 10.0.2.2 would be the host's loopback.
        result = shared.run(f"nc -w 2 10.0.2.2 {port} </dev/null", check=False)
        assert result.returncode != 0
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.vm(internet=True)
def test_internet(vm: VM) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        vm.popen(f"nc 10.0.2.2 {server.getsockname()[1]} </dev/null")
        server.accept()[0].close()


@pytest.mark.vm(nics=[Nic(), Nic(model="e1000", mac="52:54:00:00:00:07"), Nic(model="rtl8139", id="third")])
def test_several_nics(vm: VM) -> None:
    found = vm.run("cat /sys/class/net/eth*/address").stdout.split()
    assert len(set(found)) == 3
    assert all(address.startswith("52:54:00:") for address in found)
    assert "52:54:00:00:00:07" in found
    # One that is late asks for its address in the background.
    vm.run("until [ $(ip -o -4 addr | grep -c eth) = 3 ]; do usleep 50000; done")
