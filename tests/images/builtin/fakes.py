"""Small stand-ins for what a distribution offers: ELF files, packages, and an archive of them."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


def elf(sections: Mapping[str, bytes] | None = None) -> bytes:
    """Return a little-endian ELF64 file with the given sections."""
    contents = {"": b"", **(sections or {})}
    names = b"".join(name.encode() + b"\0" for name in (*contents, ".shstrtab"))
    contents[".shstrtab"] = names
    body, headers, place, name_at = b"", b"", 64, 0
    for name, content in contents.items():
        kind = 1 if name else 0
        headers += struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, place, len(content), 0, 0, 1, 0)
        name_at += len(name) + 1
        body += content
        place += len(content)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, place, 0, 64, 0, 0, 64, len(contents), len(contents) - 1)
    return header + body + headers


def module(*, depends: str = "", aliases: tuple[str, ...] = (), softdep: str = "") -> bytes:
    """Return a kernel module that consists of its .modinfo."""
    pairs = [f"alias={alias}" for alias in aliases] + [f"depends={depends}", "license=GPL"]
    if softdep:
        pairs.append(f"softdep={softdep}")
    return elf({".modinfo": b"".join(pair.encode() + b"\0" for pair in pairs)})


def library(*needed: str) -> bytes:
    """Return a library that needs others."""
    strings, dynamic = b"\0", b""
    for name in needed:
        dynamic += struct.pack("<QQ", 1, len(strings))
        strings += name.encode() + b"\0"
    return elf({".dynstr": strings, ".dynamic": dynamic + bytes(16)})


@dataclass
class FakePackage:
    """A package to be built: ``files`` by absolute path; a str is a link's target."""

    name: str
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    version: str = "1.0"
    depends: str = ""
    component: str = "main"


def build_deb(package: FakePackage, directory: Path) -> Path:
    root = Path(tempfile.mkdtemp(prefix="tree.", dir=directory))
    root.chmod(0o755)
    for path, content in package.files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.symlink_to(content)
        else:
            target.write_bytes(content)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN").chmod(0o755)
    fields = f"Package: {package.name}\nVersion: {package.version}\nArchitecture: amd64\n"
    fields += f"Depends: {package.depends}\n" if package.depends else ""
    (root / "DEBIAN/control").write_text(f"{fields}Maintainer: nobody <nobody@example.org>\nDescription: fake\n")
    deb = directory / f"{package.name}_{package.version}_amd64.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(deb)]
    # The same content has to be the same package when it is published once more.
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    return deb


def guest_packages(
    release: str = "6.12.0-fake", *, meta: str = "linux-image-amd64", component: str = "main"
) -> list[FakePackage]:
    """Return all that the built-in guest is made from, as small as possible."""
    modules = f"/usr/lib/modules/{release}"
    return [
        FakePackage(meta, depends=f"linux-image-{release} (= 1.0)"),
        FakePackage(
            f"linux-image-{release}",
            {
                f"/boot/vmlinuz-{release}": b"a kernel",
                f"{modules}/modules.builtin": b"kernel/fs/fuse/virtiofs.ko\n",
                f"{modules}/kernel/drivers/virtio/virtio.ko.xz": lzma.compress(module()),
                f"{modules}/kernel/drivers/net/virtio_net.ko.gz": gzip.compress(
                    module(depends="virtio", aliases=("virtio:d00000001v*",))
                ),
            },
            depends="kmod, initramfs-tools | linux-initramfs-tool",
        ),
        FakePackage("busybox-static", {"/bin/busybox": b"busybox"}, component=component),
        FakePackage(
            "dropbear-bin", {"/usr/sbin/dropbear": library("libc.so.6")}, depends="libc6 (>= 2)", component=component
        ),
        FakePackage(
            "libc6",
            {
                "/lib/x86_64-linux-gnu/libc.so.6": library("ld-linux-x86-64.so.2"),
                "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": library(),
                "/lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                **{f"/lib/x86_64-linux-gnu/{name}": library("libc.so.6") for name in _C_PARTS},
            },
            depends="libgcc-s1, debconf",
        ),
        FakePackage("libgcc-s1"),
    ]


_C_PARTS = ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")


@dataclass
class FakeArchive:
    """An archive on disk, signed by a key of its own; ``home`` is gpg's."""

    root: Path
    home: Path

    @property
    def keyring(self) -> Path:
        return self.root.parent / "keyring.gpg"

    def make_key(self) -> None:
        self.home.mkdir(mode=0o700)
        self._gpg("--quick-generate-key", "Fake archive <fake@example.org>", "ed25519", "sign", "never")
        self.keyring.write_bytes(self._gpg("--export"))

    def publish(self, suite: str, packages: list[FakePackage], *, compression: str = "xz", extra: str = "") -> None:
        """Build the packages and the signed indexes of a suite with the components main and universe."""
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        stanzas: dict[str, str] = {"main": "", "universe": ""}
        for package in packages:
            deb = build_deb(package, self.root.parent)
            data = deb.read_bytes()
            (pool / deb.name).write_bytes(data)
            stanza = f"Package: {package.name}\nVersion: {package.version}\nArchitecture: amd64\n"
            stanza += f"Depends: {package.depends}\n" if package.depends else ""
            stanza += f"Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            stanzas[package.component] += f"{stanza}Description: fake\n\n"
        base = self.root / "dists" / suite
        listing = ""
        for component, text in stanzas.items():
            data = (lzma.compress if compression == "xz" else gzip.compress)(text.encode())
            name = f"{component}/binary-amd64/Packages.{compression}"
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(data)
            listing += f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
        self.sign(suite, f"Origin: Fake\nSuite: stable\nCodename: {suite}\n{extra}SHA256:\n{listing}")

    def sign(self, suite: str, release: str) -> None:
        target = self.root / "dists" / suite / "InRelease"
        target.write_bytes(self._gpg("--clear-sign", data=release.encode()))

    def stop(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)

    def _gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            [*command, *arguments], input=data, check=True, capture_output=True, env=environment
        ).stdout
