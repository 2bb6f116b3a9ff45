"""The images that others publish: where they are, by what they are verified, and how to get into them.

Checksums that stand here were found in at least two projects that pin them, where there are two. None of the addresses
can be tried without a network, so no test does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pytest_kvm.images.published import Publisher
from pytest_kvm.spec.image import Image

# An account without a password gets this one by its seed: a console is of no use otherwise.
_PASSWORD = "pytest-kvm"
# Status 2 says that cloud-init did what it should and has something to complain about, such as keys of an old kind.
_CLOUD_INIT = "cloud-init status --wait --long; status=$?; [ $status = 2 ] || exit $status"


def _cloud(user: str, memory: str = "512M", *, agent: bool = False, cpu: str | None = None) -> Image:
    """Return the description of an image with cloud-init."""
    return Image(
        "to be fetched",
        format="qcow2",
        login=user,
        password=_PASSWORD,
        ssh_user=user,
        sudo=True,
        agent=agent,
        settled=_CLOUD_INIT,
        seed="nocloud",
        memory=memory,
        cpu=cpu,
        devices=("VGA",),  # some of their boot loaders do not go on without one
    )


def _enterprise(user: str) -> Image:
    """Return the description of an Enterprise Linux: 9 wants x86-64-v2, 10 v3, which QEMU's default CPU is not."""
    return _cloud(user, "1G", agent=True, cpu="max")


def _plain(*versions: str) -> Mapping[str, Mapping[str, str]]:
    """Return versions whose addresses have nothing else to fill in."""
    return {version: {} for version in versions}


_CIRROS = Image(
    "to be fetched",
    format="qcow2",
    login="cirros",
    password="gocubsgo",
    prompt=r"\$ ",
    ssh_user="cirros",
    sudo=True,
    seed="nocloud",
)
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}

PUBLISHERS: Mapping[str, Publisher] = {
    "cirros": Publisher(
        versions=_plain("0.6.3", "0.6.2", "0.6.1", "0.5.2", "0.5.1", "0.4.0", "0.3.5", "0.3.4"),
        addresses=(
            "https://download.cirros-cloud.net/{version}/cirros-{version}-{arch}-disk.img",
            "https://github.com/cirros-dev/cirros/releases/download/{version}/cirros-{version}-{arch}-disk.img",
        ),
        arches={"x86_64": "x86_64", "aarch64": "aarch64", "i386": "i386"},
        image=_CIRROS,
        images=dict.fromkeys(["0.3.5", "0.3.4"], replace(_CIRROS, password="cubswin:)")),
        pinned={
            "0.6.3": {
                "x86_64": "sha256:7d6355852aeb6dbcd191bcda7cd74f1536cfe5cbf8a10495a7283a8396e4b75b",
                "aarch64": "sha256:611879b8299363fe60ff0f84982e4da08e63f476e8481170223db982959783cb",
            },
            "0.6.2": {
                "x86_64": "sha256:07e44a73e54c94d988028515403c1ed762055e01b83a767edf3c2b387f78ce00",
                "aarch64": "md5:c1c58e8a058d50e1d1891df8bad171b2",
            },
            "0.6.1": {
                "x86_64": "sha256:cc704ab14342c1c8a8d91b66a7fc611d921c8b8f1aaf4695f9d6463d913fa8d1",
                "aarch64": "sha256:db9420c481c11dee17860aa46fb1a3efa05fa4fb152726d6344e24da03cb0ccf",
            },
            "0.5.2": {
                "x86_64": "sha256:932fcae93574e242dc3d772d5235061747dfe537668443a1f0567d893614b464",
                "aarch64": "sha256:889c1117647b3b16cfc47957931c6573bf8e755fc9098fdcad13727b6c9f2629",
            },
            "0.5.1": {"x86_64": "sha256:c4110030e2edf06db87f5b6e4efc27300977683d53f040996d15dcc0ad49bb5a"},
            "0.4.0": {"x86_64": "sha256:a8dd75ecffd4cdd96072d60c2237b448e0c8b2bc94d57f10fdbc8c481d9005b8"},
            "0.3.5": {"x86_64": "sha256:e137062a4dfbb4c225971b67781bc52183d14517170e16a3841d16f962ae7470"},
            "0.3.4": {
                "x86_64": "sha256:34987d0d5702f8813f3ff9efe90e9e39e6926ec78658763580a79face67f3394",
                "i386": "md5:79b4436412283bb63c2cba4ac796bcd9",
            },
        },
    ),
    "debian": Publisher(
        versions={"13": {"codename": "trixie"}, "12": {"codename": "bookworm"}, "11": {"codename": "bullseye"}},
        addresses=(
            "https://cloud.debian.org/images/cloud/{codename}/latest/debian-{version}-genericcloud-{arch}.qcow2",
        ),
        checksums="https://cloud.debian.org/images/cloud/{codename}/latest/SHA512SUMS",
        arches=_DEBIAN,
        image=_cloud("debian"),
    ),
    "ubuntu": Publisher(
        versions=_plain("26.04", "25.10", "24.04", "22.04"),
        addresses=(
            "https://cloud-images.ubuntu.com/releases/{version}/release/ubuntu-{version}-server-cloudimg-{arch}.img",
        ),
        checksums="https://cloud-images.ubuntu.com/releases/{version}/release/SHA256SUMS",
        arches=_DEBIAN,
        image=_cloud("ubuntu", "1G"),
    ),
    "fedora": Publisher(
        versions={
            "44": {"compose": "1.7"},
            "43": {"compose": "1.6"},
            "42": {"compose": "1.1"},
            "41": {"compose": "1.4"},
        },
        addresses=tuple(
            f"https://{place}/fedora/linux/releases/{{version}}/Cloud/{{arch}}/images/"
            "Fedora-Cloud-Base-Generic-{version}-{compose}.{arch}.qcow2"
            # A release moves to the archive when nobody looks after it any more.
            for place in ("download.fedoraproject.org/pub", "archives.fedoraproject.org/pub/archive")
        ),
        image=_cloud("fedora", "1G", agent=True),
        pinned={
            "44": {
                "x86_64": "sha256:28680fe5b371a5a82ebf43a31926e086a168e59949d03969c5093e7071f90b7f",
                "aarch64": "sha256:55c60a3b80d3616a08705afd0459e75fe9f03c54aba7a46e4002a41a72fa0d5b",
            },
            "43": {
                "x86_64": "sha256:846574c8a97cd2d8dc1f231062d73107cc85cbbbda56335e264a46e3a6c8ab2f",
                "aarch64": "sha256:66031aea9ec61e6d0d5bba12b9454e80ca94e8a79c913d37ded4c60311705b8b",
            },
            "42": {
                "x86_64": "sha256:e401a4db2e5e04d1967b6729774faa96da629bcf3ba90b67d8d9cce9906bec0f",
                "aarch64": "sha256:e10658419a8d50231037dc781c3155aa94180a8c7a74e5cac2a6b09eaa9342b7",
            },
            "41": {
                "x86_64": "sha256:6205ae0c524b4d1816dbd3573ce29b5c44ed26c9fbc874fbe48c41c89dd0bac2",
                "aarch64": "sha256:085883b42c7e3b980e366a1fe006cd0ff15877f7e6e984426f3c6c67c7cc2faa",
            },
        },
    ),
    "alpine": Publisher(
        versions={"3.22": {"patch": "3.22.5"}, "3.21": {"patch": "3.21.7"}, "3.20": {"patch": "3.20.10"}},
        addresses=(
            "https://dl-cdn.alpinelinux.org/alpine/v{version}/releases/cloud/"
            "nocloud_alpine-{patch}-{arch}-cloudinit-r0.qcow2",
        ),
        checksums="{address}.sha512",
        arches={"x86_64": "x86_64-bios", "aarch64": "aarch64-uefi"},
        # It has doas in place of sudo.
        image=replace(_cloud("alpine"), sudo=False),
    ),
    "rocky": Publisher(
        versions=_plain("10", "9", "8"),
        addresses=(
            "https://dl.rockylinux.org/pub/rocky/{version}/images/{arch}/"
            "Rocky-{version}-GenericCloud-Base.latest.{arch}.qcow2",
        ),
        checksums="{address}.CHECKSUM",
        image=_enterprise("rocky"),
    ),
    "almalinux": Publisher(
        versions=_plain("10", "9"),
        addresses=(
            "https://repo.almalinux.org/almalinux/{version}/cloud/{arch}/images/"
            "AlmaLinux-{version}-GenericCloud-latest.{arch}.qcow2",
        ),
        checksums="https://repo.almalinux.org/almalinux/{version}/cloud/{arch}/images/CHECKSUM",
        image=_enterprise("almalinux"),
    ),
    "centos-stream": Publisher(
        versions=_plain("10", "9"),
        addresses=(
            "https://cloud.centos.org/centos/{version}-stream/{arch}/images/"
            "CentOS-Stream-GenericCloud-{version}-latest.{arch}.qcow2",
        ),
        checksums="{address}.SHA256SUM",
        image=_enterprise("cloud-user"),
    ),
    "opensuse-leap": Publisher(
        versions={"16.0": {"prefix": "Leap"}, "15.6": {"prefix": "openSUSE-Leap"}},
        addresses=(
            "https://download.opensuse.org/distribution/leap/{version}/appliances/"
            "{prefix}-{version}-Minimal-VM.{arch}-Cloud.qcow2",
        ),
        checksums="{address}.sha256",
        image=_cloud("opensuse", "1G"),
        images={"16.0": _cloud("sles", "1G")},
    ),
    "archlinux": Publisher(
        versions={"latest": {}},
        addresses=("https://geo.mirror.pkgbuild.com/images/{version}/Arch-Linux-{arch}-cloudimg.qcow2",),
        checksums="{address}.SHA256",
        arches={"x86_64": "x86_64"},
        image=_cloud("arch", agent=True),
    ),
}
