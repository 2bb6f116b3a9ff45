"""Building and finding the built-in guest, out of an archive of small fake packages."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import build, recipe
from pytest_kvm.images.builtin.pool import file_sha256
from pytest_kvm.images.builtin.tiny import tiny_image
from pytest_kvm.spec.image import Image
from tests.images.builtin.fakes import FakeArchive, FakePackage, guest_packages
from tests.images.builtin.test_parts import read_cpio


@pytest.fixture(autouse=True)
def _on_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "os_release", lambda: {"ID": "debian"})


def _directory(image: Image) -> Path:
    assert image.kernel is not None
    return Path(image.kernel).parent


def _initrd(image: Image) -> dict[str, tuple[int, bytes]]:
    assert image.initrd is not None
    return read_cpio(Path(image.initrd).read_bytes())


def test_guest(archive: FakeArchive, address: str, cache: Path) -> None:
    said: list[str] = []
    image = tiny_image(archive=address, keyring=str(archive.keyring), report=said.append)
    assert (image.name, image.when_ready, image.login, image.shell) == ("tiny:trixie", "shell", "root", True)
    assert image.kernel is not None
    assert Path(image.kernel).read_bytes() == b"a kernel"
    assert said[0].startswith("fetching the package index of trixie")
    assert len([line for line in said if "index" in line]) == 1, "kernel and userland are of one suite"
    assert said[-1].startswith("building the built-in guest tiny:trixie")

    files = _initrd(image)
    modules = "lib/modules/6.12.0-fake"
    assert files["init"][1] == b"/bin/busybox"
    assert files["lib/kvm/sysinit"][0] & 0o777 == 0o755
    assert files["etc/passwd"][0] & 0o777 == 0o644
    assert files["root/.ssh/authorized_keys"][1].startswith(b"ssh-ed25519 AAAA")
    assert files["root/.ssh"][0] & 0o777 == 0o700
    dependencies = files[f"{modules}/modules.dep"][1].decode()
    assert "kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio.ko\n" in dependencies
    assert "lib64/ld-linux-x86-64.so.2" in files
    info = json.loads((_directory(image) / "info.json").read_text())
    assert info["kernel_release"] == "6.12.0-fake"
    assert "virtiofs" not in info["missing_modules"], "it is in the kernel"
    assert "nvme" in info["missing_modules"]
    names = {package["name"] for package in info["packages"]}
    assert names == {"busybox-static", "dropbear-bin", "libc6", "libgcc-s1", "linux-image-6.12.0-fake"}


def test_second_time(archive: FakeArchive, address: str, cache: Path) -> None:
    first = tiny_image(archive=address, keyring=str(archive.keyring))
    said: list[str] = []
    assert tiny_image(archive=address, keyring=str(archive.keyring), offline=True, report=said.append) == first
    assert said == []
    assert sorted(path.name for path in (cache / "images").iterdir()) == sorted([".lock", _directory(first).name])


def test_finding_imports_nothing_heavy(archive: FakeArchive, address: str, cache: Path) -> None:
    tiny_image(archive=address, keyring=str(archive.keyring))
    code = (
        "import sys; from pytest_kvm.images.builtin import recipe; recipe.os_release = dict;"
        f"from pytest_kvm.images.builtin.tiny import tiny_image; print(tiny_image(archive={address!r}).name);"
        "heavy = {'paramiko', 'cryptography', 'filelock', 'tqdm', 'requests', 'urllib.request'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "tiny:trixie\n[]\n"


def test_changed_recipe_needs_no_network(
    archive: FakeArchive, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_image(archive=address, keyring=str(archive.keyring))
    monkeypatch.setattr(recipe, "recipe_digest", lambda: "another")
    second = tiny_image(archive=address, keyring=str(archive.keyring), offline=True)
    assert _directory(first) != _directory(second)
    assert _initrd(first) == _initrd(second)


def test_other_kernel_same_userland(archive: FakeArchive, address: str, cache: Path) -> None:
    archive.publish("sid", guest_packages("7.2.0-fake"))
    said: list[str] = []
    image = tiny_image("sid", archive=address, keyring=str(archive.keyring), report=said.append)
    assert image.name == "tiny:sid"
    assert "lib/modules/7.2.0-fake/modules.dep" in _initrd(image)
    assert any("index of trixie" in line for line in said)
    assert any("index of sid" in line for line in said)


def test_kernel_in_several_packages(archive: FakeArchive, address: str, cache: Path) -> None:
    packages = guest_packages("7.2.0-fake")
    whole = packages[1]
    image = {path: content for path, content in whole.files.items() if "vmlinuz" in path}
    whole.files = {path: content for path, content in whole.files.items() if path not in image}
    whole.depends = "linux-binary-7.2.0-fake"
    binary = FakePackage("linux-binary-7.2.0-fake", {"/usr/lib/modules/7.2.0-fake/vmlinuz": b"new place"})
    archive.publish("sid", [*packages, binary])
    found = tiny_image("sid", archive=address, keyring=str(archive.keyring))
    assert found.kernel is not None
    assert Path(found.kernel).read_bytes() == b"new place"


def test_ubuntu(archive: FakeArchive, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "os_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "noble"})
    archive.publish("noble", guest_packages("6.8.0-31-generic", meta="linux-image-generic", component="universe"))
    image = tiny_image(archive=address, keyring=str(archive.keyring))
    assert image.name == "tiny:noble"
    assert "lib/modules/6.8.0-31-generic/modules.dep" in _initrd(image)


def test_package_gone_from_the_archive(archive: FakeArchive, address: str, cache: Path) -> None:
    tiny_image(archive=address, keyring=str(archive.keyring))
    for deb in (cache / "packages").glob("*.deb"):
        deb.unlink()
    for old in (archive.root / "pool").iterdir():
        old.unlink()
    newer = guest_packages("6.12.9-fake")
    for package in newer:
        package.version = "1.1"
    archive.publish("trixie", newer)
    image = tiny_image(archive=address, keyring=str(archive.keyring), refresh=True)
    assert "lib/modules/6.12.9-fake/modules.dep" in _initrd(image)
    assert tiny_image(archive=address) == image


def test_remembered_list_that_is_out_of_date(
    archive: FakeArchive, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_image(archive=address, keyring=str(archive.keyring))
    for path in [*(cache / "packages").glob("*.deb"), *(archive.root / "pool").iterdir()]:
        path.unlink()
    newer = guest_packages()
    for package in newer:
        package.version = "1.1"
    archive.publish("trixie", newer)
    monkeypatch.setattr(recipe, "recipe_digest", lambda: "another")
    said: list[str] = []
    tiny_image(archive=address, keyring=str(archive.keyring), report=said.append)
    assert any("404" in line for line in said)


def test_offline_with_an_empty_cache(cache: Path) -> None:
    with pytest.raises(ImageUnavailable, match=r"tiny:sid is not in the cache .*--kvm-offline forbids downloads"):
        tiny_image("sid", offline=True)


def test_neither_apt_nor_archive(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageUnavailable, match="no apt-get is here") as caught:
        tiny_image()
    assert "--kvm-archive=URL" in caught.value.hint
    assert "--kvm-image=cirros" in caught.value.hint


def test_package_of_another_content(archive: FakeArchive, address: str, cache: Path) -> None:
    path = next((archive.root / "pool").glob("busybox*"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ImageUnavailable, match=r"busybox-static.*is not what the archive announces"):
        tiny_image(archive=address, keyring=str(archive.keyring))
    assert list((cache / "packages").glob("partial.*")) == []
    assert list((cache / "packages").glob("*.deb")) == []


def test_suite_without_a_kernel(archive: FakeArchive, address: str, cache: Path) -> None:
    archive.publish("sid", [FakePackage("hello")])
    with pytest.raises(ImageUnavailable, match="suite sid has no package linux-image-amd64"):
        tiny_image("sid", archive=address, keyring=str(archive.keyring))


@pytest.mark.parametrize("left_out", ["busybox-static", "libc6", "linux-image-6.12.0-fake"])
def test_packages_that_lack_something(archive: FakeArchive, address: str, cache: Path, left_out: str) -> None:
    packages = guest_packages()
    for package in packages:
        if package.name == left_out:
            package.files = {}
    archive.publish("trixie", packages)
    with pytest.raises(ImageUnavailable, match=r"the packages of the built-in guest.* (do not hold|hold no)"):
        tiny_image(archive=address, keyring=str(archive.keyring))


def test_full_disk_and_killed_build(
    archive: FakeArchive, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build, "assemble", full)
        with pytest.raises(ImageUnavailable, match=r"cannot be made in .*: No space left on device"):
            tiny_image(archive=address, keyring=str(archive.keyring))
    assert [path.name for path in (cache / "images").iterdir()] == [".lock"]
    (cache / "images/building.killed").mkdir()
    (cache / "images/building.killed/vmlinuz").touch()
    (cache / "packages/partial.killed").mkdir()
    image = tiny_image(archive=address, keyring=str(archive.keyring), offline=True)
    assert sorted(path.name for path in (cache / "images").iterdir()) == sorted([".lock", _directory(image).name])
    assert not (cache / "packages/partial.killed").exists()


def test_one_builds_and_others_wait(archive: FakeArchive, address: str, cache: Path) -> None:
    (cache / "images").mkdir(parents=True)
    lock = filelock.FileLock(cache / "images/.lock")
    lock.acquire()
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if line.startswith("waiting"):
            lock.release()

    tiny_image(archive=address, keyring=str(archive.keyring), report=hear)
    assert said[0] == f"waiting for another process that makes a built-in guest in {cache}"


def test_files_are_what_their_names_say(archive: FakeArchive, address: str, cache: Path) -> None:
    tiny_image(archive=address, keyring=str(archive.keyring))
    for deb in (cache / "packages").glob("*.deb"):
        assert file_sha256(deb) == deb.stem
    assert oct(os.stat(cache / "ssh").st_mode & 0o777) == "0o700"
