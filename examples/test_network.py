"""A port of the guest, reached from the test."""

from __future__ import annotations

import urllib.request

import pytest

from pytest_kvm import VM


@pytest.mark.vm(hostfwd=[8080])
def test_web_server(vm: VM) -> None:
    vm.run("mkdir /srv; echo hello >/srv/index.html; httpd -p 8080 -h /srv")
    host, port = vm.forwarded(8080)  # always 127.0.0.1, the port chosen by the kernel
    with urllib.request.urlopen(f"http://{host}:{port}/index.html", timeout=30) as reply:
        assert reply.read() == b"hello\n"
