"""Make images: new ones, and others of existing ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pytest_kvm.images.formats import names_file
from pytest_kvm.images.verbs.call import Call, PathLike, Progress
from pytest_kvm.images.verbs.chain import OVERLAYS, find_chain, settle_backing, settle_format
from pytest_kvm.images.verbs.names import snapshot_arguments
from pytest_kvm.images.verbs.options import CREATABLE, disk_size, option_arguments
from pytest_kvm.images.verbs.target import new_image
from pytest_kvm.spec.size import read_size
from pytest_kvm.spec.values import one_of
from pytest_kvm.spec.wording import Rejected, listed

# Formats that can have a backing file when they are made, and compressed clusters.
_BACKED = (*OVERLAYS, "qcow", "vmdk")
_COMPRESSED = ("qcow2", "qcow", "vmdk")


def create(
    path: PathLike,
    size: int | str | None = None,
    *,
    format: str = "qcow2",
    backing: PathLike | None = None,
    backing_format: str | None = None,
    relative_backing: bool = False,
    options: Mapping[str, object] | None = None,
    overwrite: bool = False,
    qemu: str | None = None,
) -> Path:
    """Make an empty image, or an overlay on another one, and return its absolute path.

    ``size`` is that of the guest's disk (a number: bytes; default: the backing file's). ``format`` is raw, qcow2,
    qcow, qed, vmdk, vdi, vhdx, vpc or parallels. ``backing`` is the image that it is an overlay on,
    ``backing_format`` that one's format, which has to be said; the name that is written into the overlay is the
    absolute one, or with ``relative_backing`` starts at the overlay's folder, so that both can be moved together.
    ``options`` are the format's own, such as ``{"cluster_size": "64k", "lazy_refcounts": True, "preallocation":
    "metadata"}`` (qemu-img(1), "Disk image file formats"). An existing file is kept unless ``overwrite`` is said.

    Raises SpecError, HostError, QemuImgError.
    """
    call = Call("create", path, qemu)
    _check_made(call, format)
    call.flags(overwrite=overwrite)
    over = _Backing(call, format, backing, backing_format, relative=relative_backing)
    length = disk_size(call, "size", size) if size is not None else None
    if length is None and over.path is None:
        with call.argument("size", size):
            raise Rejected("give the size of the disk, such as '64M', or a backing file")
    given = option_arguments(call, options, "create", "-f", format, format_=format)
    with new_image(call, call.path, overwrite=overwrite, sources=over.chain) as made:
        sizes = [str(length)] if length is not None else []
        arguments = ["create", "-q", "-f", format, *over.arguments("-b"), *given, str(made), *sizes]
        call.run(*arguments, aliases={made: call.path})
        over.finish(made, call.path)
    return call.path


def convert(
    path: PathLike,
    target: PathLike,
    *,
    format: str = "qcow2",
    source_format: str | None = None,
    options: Mapping[str, object] | None = None,
    compress: bool = False,
    snapshot: str | None = None,
    sparse: int | str = "4k",
    backing: PathLike | None = None,
    backing_format: str | None = None,
    relative_backing: bool = False,
    bitmaps: bool = False,
    salvage: bool = False,
    overwrite: bool = False,
    force_share: bool = False,
    progress: Progress = False,
    qemu: str | None = None,
) -> Path:
    """Copy what a guest reads from an image into a new one, and return that one's absolute path.

    ``format`` is the target's, ``source_format`` that of ``path``; ``options`` are the target format's own, as for
    ``create``. ``compress`` compresses (qcow2, qcow, vmdk). ``snapshot`` names a snapshot in the image, which is
    copied instead. ``sparse`` is how many bytes of zeros become a hole (0: none, all is written). With ``backing``
    and ``backing_format`` the target is an overlay on an image that has the same content up to what differs.
    ``bitmaps`` copies dirty bitmaps, too (qcow2). ``salvage`` goes on where the image cannot be read, with zeros. An
    existing target is kept unless ``overwrite`` is said. ``force_share`` reads an image in use; ``progress`` is told
    how far it is.

    Raises SpecError, HostError, QemuImgError; then the target is as it was.
    """
    call = Call("convert", path, qemu)
    final = call.place("target", target)
    _check_made(call, format)
    call.flags(compress=compress, bitmaps=bitmaps, salvage=salvage, overwrite=overwrite, force_share=force_share)
    arguments = call.reporting(progress)
    call.existing(call.path)
    source = settle_format(call, call.path, source_format, keyword="source_format")
    _check_features(call, source, format, compress=compress, bitmaps=bitmaps)
    over = _Backing(call, format, backing, backing_format, relative=relative_backing)
    with call.argument("sparse", sparse):
        arguments += ["-S", str(0 if sparse in (0, "0") else read_size(sparse, "B"))]
    arguments += snapshot_arguments(call, source, snapshot, force_share=force_share)
    arguments += option_arguments(call, options, "create", "-f", format, format_=format)
    for flag, wanted in (("-c", compress), ("--bitmaps", bitmaps), ("--salvage", salvage), ("-U", force_share)):
        arguments += [flag] if wanted else []
    sources = [*find_chain(call.path, source), *over.chain]
    with new_image(call, final, overwrite=overwrite, sources=sources) as made:
        formats = ("-f", source, "-O", format, *over.arguments("-B"))
        files = (str(call.path), str(made))
        aliases = {made: final}
        call.run(
            "convert", *formats, *arguments, *files, progress=progress, shareable=True, aliases=aliases, written=final
        )
        over.finish(made, final)
    return final


def _check_made(call: Call, format_: str) -> None:
    with call.argument("format", format_):
        one_of(*CREATABLE)(format_)


def _check_features(call: Call, source: str, format_: str, *, compress: bool, bitmaps: bool) -> None:
    with call.argument("compress", compress):
        if compress and format_ not in _COMPRESSED:
            raise Rejected(f"{format_} cannot be compressed; {listed(_COMPRESSED)} can")
    with call.argument("bitmaps", bitmaps):
        if bitmaps and (source, format_) != ("qcow2", "qcow2"):
            raise Rejected(f"only qcow2 has bitmaps: this is {source} to {format_}")


class _Backing:
    """The image that a new one is an overlay on, if it is; ``chain`` are that one and those below it."""

    def __init__(
        self, call: Call, format_: str, path: PathLike | None, path_format: str | None, *, relative: bool
    ) -> None:
        self.path: Path | None = None
        self.chain: list[Path] = []
        self._call, self._format = call, format_
        self._path_format = ""
        self._relative = relative
        call.flags(relative_backing=relative)
        if path is None:
            if path_format is not None or relative:
                with call.argument("backing", path):
                    raise Rejected("it has to be given with backing_format=, and with relative_backing=")
            return
        with call.argument("backing", path):
            possible = OVERLAYS if relative else _BACKED
            if format_ not in possible:
                name = " by a relative name" if relative else ""
                raise Rejected(f"{format_} has no backing file{name}; {listed(possible)} have")
        self.path = call.place("backing", path)
        self._path_format = settle_backing(call, self.path, path_format)
        self.chain = find_chain(self.path, self._path_format)

    def arguments(self, flag: str) -> list[str]:
        """Return the arguments for it."""
        return [flag, str(self.path), "-F", self._path_format] if self.path is not None else []

    def finish(self, made: Path, final: Path) -> None:
        """Write its relative name into an image that is to be at ``final``."""
        if self._relative and self.path is not None:
            name = relative_name(self.path, final)
            arguments = ("-u", "-f", self._format, "-b", name, "-F", self._path_format, str(made))
            self._call.run("rebase", *arguments, aliases={made: final})


def relative_name(backing: Path, image: Path) -> str:
    """Return a name that begins at an image's folder, and that is no protocol for QEMU."""
    name = os.path.relpath(os.path.realpath(backing), os.path.realpath(image.parent))
    return name if names_file(name) else f"./{name}"
