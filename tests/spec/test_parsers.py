"""QEMU's texts, read and refused."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.boot import Boot, parse_boot
from pytest_kvm.spec.forward import Forward, parse_hostfwd
from pytest_kvm.spec.size import Memory, parse_memory, parse_size
from pytest_kvm.spec.smp import Smp, parse_smp

MIB = 2**20


@pytest.mark.parametrize(
    ("value", "unit", "size"),
    [
        ("512M", "M", 512 * MIB),
        (512, "M", 512 * MIB),
        ("512", "M", 512 * MIB),
        ("1.5G", "M", 1536 * MIB),
        (".5k", "M", 512),
        ("1440k", "B", 1440 * 1024),
        (4096, "B", 4096),
        ("2t", "M", 2 * 2**40),
    ],
)
def test_sizes(value: int | str, unit: str, size: int) -> None:
    assert parse_size(value, unit) == size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            "1GB",
            "vm(size='1GB'): expected a size such as '512M' or '1.5G' (without a suffix: M), got '1GB'; "
            "the suffixes are b, k, M, G and T",
        ),
        ("0", "vm(size='0'): a size must be more than 0 and at most 9223372036854775807 bytes, got '0'"),
        ("big", "vm(size='big'): expected a size such as '512M' or '1.5G' (without a suffix: M), got 'big'"),
    ],
)
def test_wrong_sizes(value: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_size(value)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "memory"),
    [
        (256, Memory(256 * MIB)),
        ("1G", Memory(1024 * MIB)),
        ("256M,slots=4,maxmem=1G", Memory(256 * MIB, 4, 1024 * MIB)),
        ("size=256M,maxmem=256M", Memory(256 * MIB, 0, 256 * MIB)),
    ],
)
def test_memory(value: int | str, memory: Memory) -> None:
    assert parse_memory(value) == memory


MEMORY = "a number of MiB or QEMU's text such as '512M', '1G' or '256M,slots=4,maxmem=1G'"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-5, "memory must be at least 1 MiB, got -5"),
        (1.5, f"expected {MEMORY}, got 1.5 (float)"),
        (True, f"expected {MEMORY}, got True (bool)"),
        ("lots", f"expected {MEMORY}, got 'lots'"),
        ("1k", "memory must be at least 1 MiB, got '1k'"),
        ("256M,slots=4", "slots= needs maxmem=, as in '256M,slots=4,maxmem=1G'"),
        ("256M,slots=2,maxmem=256M", "slots= needs a maxmem= that is larger than the memory"),
        ("2G,slots=2,maxmem=1G", "maxmem=1G is less than the memory, 2G"),
        ("1G,slots=257,maxmem=2G", "slots must be a number from 0 to 256, got '257'"),
        ("1G,slot=2", "unknown option 'slot' in '1G,slot=2'; did you mean 'slots'?"),
    ],
)
def test_wrong_memory(value: int | str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_memory(value)
    assert str(caught.value) == f"vm(memory={value!r}): {reason}"
    assert (caught.value.keyword, caught.value.value) == ("memory", value)


@pytest.mark.parametrize(
    ("value", "smp"),
    [
        (2, Smp(2, 2)),
        ("2", Smp(2, 2)),
        ("4,sockets=1,cores=2,threads=2", Smp(4, 4, sockets=1, cores=2, threads=2)),
        ("4,sockets=2,cores=2,threads=2,maxcpus=8", Smp(4, 8, sockets=2, cores=2, threads=2)),
        ("cpus=2,maxcpus=4", Smp(2, 4)),
        ("cores=4", Smp(4, 4, cores=4)),
        ("8,dies=2", Smp(8, 8, dies=2)),
        ("8,sockets=2,clusters=2,cores=1,threads=2", Smp(8, 8, sockets=2, clusters=2, cores=1, threads=2)),
    ],
)
def test_smp(value: int | str, smp: Smp) -> None:
    assert parse_smp(value) == smp


SMP = "a number of CPUs or QEMU's text such as '4,sockets=1,cores=2,threads=2'"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("two", f"expected {SMP}, got 'two'"),
        (2.0, f"expected {SMP}, got 2.0 (float)"),
        (0, "cpus must be at least 1, got 0"),
        (-1, "cpus must be at least 1, got -1"),
        ("4,cores=x", f"expected {SMP}, got '4,cores=x'; cores is 'x'"),
        ("4,core=2", "unknown option 'core' in '4,core=2'; did you mean 'cores'?"),
        ("4,cores=2,cores=2", "option 'cores' is given twice in '4,cores=2,cores=2'"),
        ("4,cores=", "option 'cores' has no value in '4,cores='"),
        ("4,maxcpus=2", "maxcpus=2 is less than the 4 CPUs at start"),
        (
            # The product is 4: QEMU refuses this ("product of the hierarchy must match maxcpus").
            "4,sockets=1,cores=2,threads=2,maxcpus=8",
            "the product of the topology must be maxcpus: sockets 1 * cores 2 * threads 2 = 4, not 8",
        ),
        ("6,cores=4", "the product of the topology must divide the CPUs: cores 4 = 4, not 6"),
    ],
)
def test_wrong_smp(value: int | str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_smp(value)
    assert str(caught.value) == f"vm(smp={value!r}): {reason}"


@pytest.mark.parametrize(
    ("value", "boot"),
    [
        ("cd", Boot(order="cd")),
        ("order=dc,once=n,menu=on", Boot(order="dc", once="n", menu=True)),
        ("menu=off,splash=a,,b.bmp,splash-time=5000", Boot(menu=False, splash="a,b.bmp", splash_time=5000)),
        ("n,reboot-timeout=-1,strict=on", Boot(order="n", reboot_timeout=-1, strict=True)),
    ],
)
def test_boot(value: str, boot: Boot) -> None:
    assert parse_boot(value) == boot


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "expected QEMU's text such as 'dc' or 'order=dc,once=n,menu=on', got ''"),
        (5, "expected QEMU's text such as 'dc' or 'order=dc,once=n,menu=on', got 5 (int)"),
        ("xd", "order: 'x' is no boot device; they are a to p (c disk, d CD-ROM, n network)"),
        ("once=cc", "once: boot device 'c' is given twice in 'cc'"),
        ("menu=yes", "menu must be on or off, got 'yes'"),
        ("splash-time=-1", "splash-time must be from 0 to 65535 milliseconds, got '-1'"),
        ("ordre=c", "unknown option 'ordre' in 'ordre=c'; did you mean 'order'?"),
    ],
)
def test_wrong_boot(value: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_boot(value)
    assert str(caught.value) == f"vm(boot={value!r}): {reason}"


@pytest.mark.parametrize(
    ("value", "forward", "text"),
    [
        (8080, Forward("tcp", "127.0.0.1", 0, "", 8080), "tcp:127.0.0.1:0-:8080"),
        ("tcp:127.0.0.1:0-:8080", Forward("tcp", "127.0.0.1", 0, "", 8080), "tcp:127.0.0.1:0-:8080"),
        ("udp::5353-:53", Forward("udp", "127.0.0.1", 5353, "", 53), "udp:127.0.0.1:5353-:53"),
        ("tcp::-:22", Forward("tcp", "127.0.0.1", 0, "", 22), "tcp:127.0.0.1:0-:22"),
        (":0.0.0.0:80-:80", Forward("tcp", "0.0.0.0", 80, "", 80), "tcp:0.0.0.0:80-:80"),
        (
            "tcp::2222-10.0.2.15:22",
            Forward("tcp", "127.0.0.1", 2222, "10.0.2.15", 22),
            "tcp:127.0.0.1:2222-10.0.2.15:22",
        ),
    ],
)
def test_forwards(value: int | str, forward: Forward, text: str) -> None:
    assert parse_hostfwd(value) == forward
    assert str(forward) == text


FORWARD = "a guest port or QEMU's text such as 'tcp:127.0.0.1:0-:8080' or 'udp::5353-:53'"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (70000, "the guest's port must be from 1 to 65535, got 70000"),
        (0, "the guest's port must be from 1 to 65535, got 0"),
        (True, f"expected {FORWARD}, got True (bool)"),
        ("8080", f"expected {FORWARD}, got '8080'"),
        ("sctp::1-:2", f"expected {FORWARD}, got 'sctp::1-:2'"),
        ("tcp::70000-:22", "the host's port must be from 0 to 65535, got 70000"),
        ("tcp:localhost:0-:22", "the host's address must be an IPv4 address, got 'localhost'"),
        ("tcp::0-10.0.2.256:22", "the guest's address must be an IPv4 address, got '10.0.2.256'"),
    ],
)
def test_wrong_forwards(value: int | str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_hostfwd(value)
    assert str(caught.value) == f"vm(hostfwd={value!r}): {reason}"
