"""Choose kernel modules with all they depend on, and write the tables that modprobe reads."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin import elf


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module says about itself in its section .modinfo; names have ``_`` for ``-``."""

    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    softdeps: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """Chosen modules, by path below /lib/modules/RELEASE, with modprobe's tables; ``missing`` are nowhere."""

    files: Mapping[str, bytes]
    tables: Mapping[str, str]
    missing: tuple[str, ...]


@dataclass
class _Chosen:
    paths: dict[str, str] = field(default_factory=dict)  # in an order in which they can be loaded
    contents: dict[str, bytes] = field(default_factory=dict)
    infos: dict[str, ModuleInfo] = field(default_factory=dict)


def module_name(path: str) -> str:
    """Return the name by which the kernel knows a module file: ``a/virtio-rng.ko.xz`` is ``virtio_rng``."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def read_info(module: bytes) -> ModuleInfo:
    """Return what an uncompressed module says about itself.

    Raises ValueError if it is not a module.
    """
    content = elf.section(module, ".modinfo")
    if not content:
        raise ValueError("no .modinfo section, so not a kernel module")
    pairs = [entry.decode("utf-8", "replace").partition("=")[::2] for entry in content.split(b"\0") if entry]
    depends = [value for key, value in pairs if key == "depends"]
    return ModuleInfo(
        depends=tuple(name.replace("-", "_") for value in depends for name in value.split(",") if name),
        aliases=tuple(value for key, value in pairs if key == "alias"),
        softdeps=tuple(value for key, value in pairs if key == "softdep"),
    )


def decompress(path: str, data: bytes) -> bytes:
    """Return a module file's content, uncompressed according to the end of its name (none, .gz, .xz or .zst).

    Raises ImageUnavailable if it cannot be read here.
    """
    import zstandard

    ending = PurePosixPath(path).suffix
    try:
        if ending == ".ko":
            return data
        if ending == ".xz":
            return lzma.decompress(data)
        if ending == ".gz":
            return gzip.decompress(data)
        if ending == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except (lzma.LZMAError, zstandard.ZstdError, OSError, EOFError) as error:
        raise ImageUnavailable(f"the kernel module {path} cannot be uncompressed: {error}") from error
    raise ImageUnavailable(f"the kernel module {path} is compressed in a way that is not known ({ending!r})")


def select(
    names: Iterable[str],
    available: Mapping[str, str],
    read: Callable[[str], bytes],
    builtin: Iterable[str] = (),
) -> Selection:
    """Return the named modules and those they depend on, uncompressed.

    ``available`` maps module names to paths below the modules' directory, ``read`` returns the (compressed)
    file at such a path, ``builtin`` are the names of what the kernel itself holds. Soft dependencies are
    taken along where they exist. Raises ImageUnavailable if a module cannot be read or a hard dependency is
    nowhere.
    """
    have = frozenset(builtin)
    chosen = _Chosen()
    missing = []
    for name in dict.fromkeys(name.replace("-", "_") for name in names):
        if name in available:
            _take(name, available, read, have, chosen)
        elif name not in have:
            missing.append(name)
    files = {_plain(path): chosen.contents[name] for name, path in chosen.paths.items()}
    return Selection(files, _tables(chosen), tuple(sorted(missing)))


def _take(
    name: str,
    available: Mapping[str, str],
    read: Callable[[str], bytes],
    builtin: frozenset[str],
    chosen: _Chosen,
) -> None:
    if name in chosen.infos:
        return
    path = available[name]
    content = decompress(path, read(path))
    try:
        info = read_info(content)
    except ValueError as error:
        raise ImageUnavailable(f"the kernel module {path} cannot be read: {error}") from error
    chosen.infos[name] = info
    for needed in info.depends:
        if needed in available:
            _take(needed, available, read, builtin, chosen)
        elif needed not in builtin:
            raise ImageUnavailable(f"the kernel module {name} needs {needed}, which its packages do not hold")
    chosen.paths[name] = path
    chosen.contents[name] = content
    for soft in _soft_names(info):
        if soft in available:
            _take(soft, available, read, builtin, chosen)


def _soft_names(info: ModuleInfo) -> list[str]:
    words = [word for line in info.softdeps for word in line.split()]
    return [word.replace("-", "_") for word in words if word not in {"pre:", "post:"}]


def _plain(path: str) -> str:
    return path[: path.rindex(".ko") + len(".ko")]


def _closure(name: str, chosen: _Chosen, above: frozenset[str] = frozenset()) -> list[str]:
    """Return what must be loaded before a module, in an order that works; raises ImageUnavailable for a circle."""
    if name in above:
        raise ImageUnavailable(f"the kernel module {name} needs itself")
    order: list[str] = []
    for needed in chosen.infos[name].depends:
        if needed in chosen.infos:
            order += [*_closure(needed, chosen, above | {name}), needed]
    return list(dict.fromkeys(order))


def _tables(chosen: _Chosen) -> dict[str, str]:
    dependencies, aliases, soft = [], [], []
    for name, path in sorted(chosen.paths.items()):
        # depmod's order: what is to be loaded first stands last.
        needed = [_plain(chosen.paths[dependency]) for dependency in reversed(_closure(name, chosen))]
        dependencies.append(f"{_plain(path)}:{''.join(f' {dependency}' for dependency in needed)}\n")
        info = chosen.infos[name]
        # modprobe separates words by blanks, so an alias with one in it could never match.
        aliases += [f"alias {alias} {name}\n" for alias in info.aliases if not alias.split()[1:]]
        soft += [f"softdep {name} {line}\n" for line in info.softdeps]
    return {
        "modules.dep": "".join(dependencies),
        "modules.alias": "".join(aliases),
        "modules.softdep": "".join(soft),
    }
