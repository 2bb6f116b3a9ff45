"""A template's key changes with everything that its guest could notice, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.host import remembering
from pytest_kvm.machine import identity
from pytest_kvm.machine.identity import Contents, Unknowable, template_key
from pytest_kvm.machine.planning import complete, make_plan, with_monitor
from pytest_kvm.qemu.plan import PlannedFirmware, plan_drives
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary

QEMU_IMG = shutil.which("qemu-img") or "qemu-img"


class Scene:
    """A machine whose image, kernel and QEMU are files of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel, self.initrd, self.disk, self.qemu = (
            folder / name for name in ("vmlinuz", "initrd", "disk", "qemu")
        )
        for path in (self.kernel, self.initrd, self.disk, self.qemu):
            path.write_text(path.name)
        firmware = folder / "firmware"
        firmware.mkdir()
        (firmware / "bios.bin").write_text("firmware")
        self.image = Image(
            name="test", kernel=self.kernel, initrd=self.initrd, disk=self.disk, format="raw", shell=True
        )
        self.binary = replace(binary(), path=self.qemu, data=(firmware,))
        self.uefi = PlannedFirmware(code=folder / "code", template=folder / "vars")
        (folder / "code").write_text("code")
        (folder / "vars").write_text("vars")
        self.settings: dict[str, Any] = {"accel": "tcg", "host": {"kernel": "6.1"}}

    def key(self, **fields: Any) -> str:
        spec = complete(VMSpec(**{"drives": [Drive(size="8M", interface="ide")], **fields}), self.image)
        plan = make_plan(spec, self.image, self.settings["accel"], firmware=self.settings.get("firmware"))
        if self.settings.get("monitor"):
            plan = with_monitor(plan)
        drives = [(planned, planned.drive.format or "raw") for planned in plan_drives(plan.spec)]
        identity._firmware.cache_clear()  # a session looks once
        return template_key(spec, plan, drives, image=self.image, binary=self.binary, memory=self.folder / "memory")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path)
    monkeypatch.setattr(identity, "host_identity", lambda: made.settings["host"])
    return made


SAME: list[dict[str, object]] = [
    {"name": "other"},
    {"hostfwd": [8080]},
    {"internet": True},
    {"timeout": 7},
    {"autostart": False},
    {"start": "clone"},
]
OTHER: list[dict[str, object]] = [
    {"memory": "512M"},
    {"smp": 2},
    {"cpu": "max"},
    {"machine": "pc"},
    {"append": "quiet"},
    {"boot": "order=n"},
    {"extras": []},
    {"devices": ["virtio-rng-pci"]},
    {"drives": [Drive(size="9M", interface="ide")]},
    {"drives": [Drive(size="8M", interface="ide", serial="x")]},
    {"drives": []},
    {"nics": []},
    {"nics": [Nic(), Nic()]},
    {"nics": [Nic(model="e1000")]},
    {"nics": [Nic(mac="52:54:00:00:00:01")]},
    {"ready": "login"},
    {"accel": "tcg,thread=single"},
]


@pytest.mark.parametrize("fields", SAME, ids=str)
def test_what_clones_may_differ_in(scene: Scene, fields: dict[str, object]) -> None:
    assert scene.key(**fields) == scene.key()


def test_a_monitor_for_somebody_else_makes_no_other_machine(scene: Scene) -> None:
    alone = scene.key()
    scene.settings["monitor"] = True
    assert scene.key() == alone


def test_each_other_machine_has_a_template_of_its_own(scene: Scene) -> None:
    keys = [scene.key(), *(scene.key(**fields) for fields in OTHER)]
    assert len(set(keys)) == len(keys)


def test_uefi(scene: Scene) -> None:
    keys = [scene.key()]
    scene.settings["firmware"] = scene.uefi
    keys.append(scene.key())
    # Where a machine keeps its variables makes no other machine.
    assert _key_with(scene, replace(scene.uefi, variables=scene.folder / "own")) == keys[-1]
    for name in ("code", "vars"):
        (scene.folder / name).write_text("newer")
        keys.append(_key_with(scene, scene.uefi))
    assert len(set(keys)) == len(keys)


def _key_with(scene: Scene, firmware: PlannedFirmware) -> str:
    scene.settings["firmware"] = firmware
    return scene.key()


CHANGES: dict[str, Callable[[Scene], object]] = {
    "kernel": lambda scene: scene.kernel.write_text("other"),
    "initrd": lambda scene: scene.initrd.write_text("other"),
    "disk": lambda scene: scene.disk.write_text("other"),
    "disk, in a byte": lambda scene: scene.disk.write_text("disc"),
    "QEMU": lambda scene: os.utime(scene.qemu, (1, 1)),
    "firmware": lambda scene: (scene.folder / "firmware" / "bios.bin").write_text("newer firmware"),
    "a further ROM": lambda scene: (scene.folder / "firmware" / "net.rom").write_text("rom"),
    "accelerator": lambda scene: scene.settings.update(accel="kvm"),
    "host": lambda scene: scene.settings.update(host={"kernel": "6.2"}),
    "resume commands": lambda scene: setattr(scene, "image", replace(scene.image, resume=("true",))),
    "append": lambda scene: setattr(scene, "image", replace(scene.image, append="quiet")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_else_matters(scene: Scene, change: Callable[[Scene], object]) -> None:
    before = scene.key()
    change(scene)
    assert scene.key() != before


def test_a_file_that_is_replaced_by_the_same_is_the_same(scene: Scene) -> None:
    before = scene.key()
    copy = scene.folder / "copy"
    shutil.copy(scene.kernel, copy)
    os.replace(copy, scene.kernel)
    assert scene.key() == before


def test_the_host(tmp_path: Path) -> None:
    host = identity.host_identity()
    assert os.uname().release in host["kernel"]
    assert len(host["cpu"]) == 64


def test_a_missing_file(contents: Contents, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="none: No such file"):
        contents.of_file(tmp_path / "none")


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_SETTLED", 0)
    (tmp_path / "file").write_text("content")
    digest = Contents(tmp_path / "memory").of_file(tmp_path / "file")
    monkeypatch.setattr(identity, "_sha256", None)
    assert Contents(tmp_path / "memory").of_file(tmp_path / "file") == digest


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run([QEMU_IMG, *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "memory")


def test_an_overlay_is_what_is_below_it_too(tmp_path: Path, contents: Contents) -> None:
    base, middle, top = (tmp_path / f"{name}.qcow2" for name in ("base", "middle", "top"))
    qemu_img("create", "-f", "qcow2", base, "1M")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", middle)
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", middle, top)
    before = contents.of_disk(top, "qcow2")
    assert contents.of_disk(top, "qcow2") == before
    qemu_img("bench", "-w", "-c", "1", "-f", "qcow2", "--pattern", "7", base)
    assert contents.of_disk(top, "qcow2") != before
    base.unlink()
    with pytest.raises(Unknowable, match=r"base\.qcow2"):
        contents.of_disk(top, "qcow2")


def test_an_image_with_its_data_elsewhere(tmp_path: Path, contents: Contents) -> None:
    image, data = tmp_path / "image.qcow2", tmp_path / "data"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", image, "1M")
    before = contents.of_disk(image, "qcow2")
    data.write_bytes(b"x".ljust(1 << 20, b"\0"))
    assert contents.of_disk(image, "qcow2") != before


def test_formats_that_nobody_can_tell_about(tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "disk.vmdk").write_text("")
    with pytest.raises(Unknowable, match=r"disk\.vmdk: a vmdk image may refer to further files"):
        contents.of_disk(tmp_path / "disk.vmdk", "vmdk")
    (tmp_path / "not").write_text("not a qcow2")
    with pytest.raises(Unknowable, match="not: it is no qcow2 image"):
        contents.of_disk(tmp_path / "not", "qcow2")
