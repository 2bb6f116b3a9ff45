"""Folders of the host in real guests: through virtio-fs, through 9p, as an image."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest

from pytest_kvm import VM, Drive, FromFixture, HostError, MachineError, Share, SpecError, VMFactory
from pytest_kvm.host import virtiofsd
from pytest_kvm.machine.preserved import Preserved
from pytest_kvm.machine.preserving import preserve
from tests.machine.test_clones import kind

READ_ONLY = "touch '/mnt/a folder/new'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "a, folder"
    (made / "below").mkdir(parents=True)
    (made / "file").write_text("from the host\n")
    (made / "below" / "program").write_text("#!/bin/sh\necho runs\n")
    (made / "below" / "program").chmod(0o755)
    return made


def check(vm: VM, folder: Path) -> None:
    assert vm.run("cat '/mnt/a folder/file'").stdout == "from the host\n"
    assert vm.run("'/mnt/a folder/below/program'").stdout == "runs\n"
    # Not even a guest that wants to can write there.
    vm.run("mount -o remount,rw '/mnt/a folder'", check=False)
    assert vm.run(READ_ONLY, check=False).returncode == 1
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("method", "machine"), [("virtiofs", "q35"), ("9p", "pc"), pytest.param("image", "q35", marks=pytest.mark.slow)]
)
def test_a_booted_machine(vm_factory: VMFactory, folder: Path, method: str, machine: str) -> None:
    vm = vm_factory(shares=[Share(folder, "/mnt/a folder", method=method)], start="boot", machine=machine)
    (share,) = vm.shares
    assert (share.id, share.method, share.reason, share.readonly) == ("share0", method, "", True)
    assert (share.host, share.guest) == (folder, "/mnt/a folder")
    check(vm, folder)
    if method == "9p":
        vm.power_cut()
        vm.start()
    else:
        vm.reboot()
    check(vm, folder)


@pytest.mark.parametrize("method", ["auto", "image"])
def test_a_clone(vm_factory: VMFactory, folder: Path, method: str) -> None:
    vm = vm_factory(shares=[Share(folder, "/mnt/a folder", method=method)], start="clone")
    assert kind(vm) == ("clone", "")
    assert vm.shares[0].method == ("9p" if method == "auto" else method)
    assert vm.shares[0].reason == (
        "virtiofs: a clone's memory is its own, and the daemon would have to see it (start='boot' lets it)"
        if method == "auto"
        else ""
    )
    check(vm, folder)
    vm.reset()
    check(vm, folder)


@pytest.mark.vm(shares=[Share(FromFixture("folder"), "/mnt", readonly=False)])
@pytest.mark.parametrize(
    "start", [pytest.param("boot", marks=pytest.mark.vm(start="boot")), pytest.param("clone", marks=pytest.mark.vm())]
)
def test_what_the_guest_writes(vm: VM, folder: Path, start: str) -> None:
    assert kind(vm) == (start, "")
    vm.run("echo from the guest >/mnt/new && mkdir /mnt/more && mv /mnt/file /mnt/more/")
    assert (folder / "new").read_text() == "from the guest\n"
    assert [path.name for path in (folder / "more").iterdir()] == ["file"]
    (folder / "later").write_text("later\n")
    assert vm.run("cat /mnt/later").stdout == "later\n"


@pytest.mark.vm(
    shares=[Share(FromFixture("folder"), "/one", method="image"), Share(FromFixture("folder"), "/two", id="other")],
    drives=[Drive(FromFixture("disk"), format="raw"), Drive(size="8M")],
)
def test_beside_drives_that_are_plugged_in(vm: VM, folder: Path) -> None:
    assert kind(vm) == ("clone", "")
    assert [share.id for share in vm.shares] == ["share0", "other"]
    assert vm.run("cat /one/file /two/file; head -c 5 /dev/vda").stdout == "from the host\n" * 2 + "given"
    vm.reboot()
    assert vm.run("cat /one/file /two/file; head -c 5 /dev/vda").stdout == "from the host\n" * 2 + "given"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"given".ljust(1 << 20, b"\0"))
    return path


def test_an_image_is_the_folder_as_it_was(vm_factory: VMFactory, folder: Path) -> None:
    first = vm_factory(shares=[Share(folder, "/mnt", method="image")])
    (folder / "file").write_text("changed\n")
    second = vm_factory(shares=[Share(folder, "/mnt", method="image")])
    assert first.run("cat /mnt/file").stdout == "from the host\n"
    assert second.run("cat /mnt/file").stdout == "changed\n"


def test_a_guest_with_ssh_only(cirros_disk: Path, vm_factory: VMFactory, folder: Path) -> None:
    from pytest_kvm import Image

    image = Image(cirros_disk, login="cirros", password="gocubsgo", ssh_user="cirros", sudo=True, seed="nocloud")
    vm = vm_factory(image=image, shares=[Share(folder, "/mnt/here")], start="boot")
    assert (vm.via, vm.shares[0].method) == ("SSH, as cirros", "virtiofs")
    assert vm.run("cat /mnt/here/file").stdout == "from the host\n"


@pytest.mark.vm(kernel=FromFixture("installed_kernel"), shares=[Share(FromFixture("folder"), "/mnt")])
def test_a_kernel_without_9p(vm: VM) -> None:
    assert kind(vm) == ("clone", "")
    assert vm.run("cat /mnt/file").stdout == "from the host\n"
    (share,) = vm.shares
    assert share.method == "image"
    assert "; 9p: the guest's kernel does not have it (modprobe: module 9pnet_virtio not found" in share.reason


def test_a_kernel_without_any(vm_factory: VMFactory, installed_kernel: Path, folder: Path) -> None:
    with pytest.raises(MachineError) as caught:
        vm_factory(kernel=installed_kernel, shares=[Share(folder, "/mnt", method="9p")])
    assert str(caught.value).startswith(
        f"VM 'vm': {folder} does not get to /mnt in the guest: 9p: the guest's kernel does not have it (modprobe: "
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["virtiofs", "9p", "image"])
def test_many_files_and_a_large_one(vm_factory: VMFactory, tmp_path: Path, method: str) -> None:
    for number in range(10_000):
        file = tmp_path / str(number // 100) / str(number)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{number}\n")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 30)
        large.seek(-5, os.SEEK_END)
        large.write(b"last\n")
    start = "boot" if method == "virtiofs" else "clone"
    vm = vm_factory(shares=[Share(tmp_path, "/mnt", method=method)], start=start)
    numbers = vm.run("cat /mnt/*/*", timeout=900).stdout.split()
    assert sorted(map(int, numbers)) == list(range(10_000))
    assert vm.run("cat /mnt/large | tail -c 5", timeout=900).stdout == "last\n"
    assert vm.run("wc -c </mnt/large", timeout=900).stdout == f"{1 << 30}\n"


# What cannot be


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"machine": "microvm"}, "vm(machine='microvm'): its shares are plugged in, which q35 and pc are made for"),
        ({"extras": ["rng"]}, "vm(extras=…, shares=…): shares are plugged into spare root ports; add 'rootports'"),
        ({"start": "clone", "method": "virtiofs"}, "vm(start='clone'): the machine cannot be cloned: share '/mnt' is"),
        ({"host": "/nowhere"}, "Share(host='/nowhere'): there is no such folder"),
        ({"host": "/etc/passwd"}, "Share(host='/etc/passwd'): it is no folder"),
    ],
)
def test_wrong_declarations(vm_factory: VMFactory, folder: Path, fields: dict[str, str], text: str) -> None:
    share = Share(fields.pop("host", folder), "/mnt", method=fields.pop("method", "auto"))
    with pytest.raises(SpecError) as caught:
        vm_factory(shares=[share], **fields)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_too_many(vm_factory: VMFactory, folder: Path, disk: Path) -> None:
    with pytest.raises(SpecError, match="5 shares, and there are 4 root ports for them"):
        vm_factory(shares=[Share(folder, f"/mnt/{number}") for number in range(5)])
    with pytest.raises(SpecError, match=r"vm\(shares=…\): the id 'share1' is used twice"):
        vm_factory(shares=[Share(folder, "/a", id="share1"), Share(folder, "/b")])


def test_a_folder_in_the_way(vm_factory: VMFactory, folder: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot be mounted at /etc/passwd \(9p, shell, as root\): mkdir: "):
        vm_factory(shares=[Share(folder, "/etc/passwd")])


def test_no_snapshot(vm_factory: VMFactory, folder: Path) -> None:
    vm = vm_factory(shares=[Share(folder, "/mnt")])
    with pytest.raises(SpecError, match="no snapshot of a machine with shares"):
        vm.snapshot()


def test_saving_keeps_the_disks(vm_factory: VMFactory, folder: Path, tmp_path: Path) -> None:
    vm = vm_factory(shares=[Share(folder, "/mnt")])
    remarks = preserve(vm, tmp_path / "saved", test="here")
    assert remarks == ["only its disks, without memory and devices: it has shares, which belong to the host"]
    assert Preserved.load(tmp_path / "saved", vm._binary).spec.shares == ()
    assert vm.run("cat /mnt/file").stdout == "from the host\n"


# The daemon


def test_no_daemon(vm_factory: VMFactory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtiofsd, "find", lambda name: None)
    with pytest.raises(HostError, match="virtiofs: virtiofsd is not installed install the package virtiofsd"):
        vm_factory(shares=[Share(folder, "/mnt", method="virtiofs")])


def test_a_daemon_that_does_not_start(
    vm_factory: VMFactory,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = tmp_path / "virtiofsd"
    program.write_text(
        "#!/bin/sh\n[ $1 = --help ] && { echo --shared-dir --readonly; exit; }\necho not today >&2\nexit 3\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(virtiofsd, "find", lambda name: program)
    caplog.set_level(logging.INFO, "pytest_kvm")
    vm = vm_factory(shares=[Share(folder, "/mnt")], start="boot")
    assert (vm.shares[0].method, vm.shares[0].reason) == ("9p", "virtiofs: virtiofsd exited with status 3: not today")
    assert "VM 'vm': /mnt through 9p (virtiofs: virtiofsd exited with status 3: not today)" in caplog.text
    assert vm.run("cat /mnt/file").stdout == "from the host\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="QEMU 7's virtiofsd needs root")
def test_a_daemon_that_is_killed(vm_factory: VMFactory, folder: Path) -> None:
    vm = vm_factory(shares=[Share(folder, "/mnt", method="virtiofs")])
    assert kind(vm)[0] == "boot"
    (daemon,) = vm.daemons
    reading = vm.popen("until ! cat /mnt/file; do :; done")
    began = time.monotonic()
    daemon.process.signal(signal.SIGKILL)
    with pytest.raises(MachineError) as caught:
        reading.wait(timeout=120)
    assert time.monotonic() - began < 60
    assert str(caught.value) == (
        f"VM 'vm': virtiofsd, which served {folder} as /mnt, was killed by SIGKILL. It said: (nothing)"
    )
    vm.watcher.findings.tell_all()
