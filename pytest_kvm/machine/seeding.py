"""Which seed a machine gets, and where it is meanwhile: in a directory of the session's."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from pytest_kvm.errors import HostError, SpecError
from pytest_kvm.host.cache import cache_dir
from pytest_kvm.host.rundir import LaterRunDir
from pytest_kvm.images.keys import obtain_keys, openssh_host_key
from pytest_kvm.images.seed import Account, Seed, make_seed
from pytest_kvm.spec.image import Image
from pytest_kvm.spec.vm import VMSpec


class Seeds:
    """The session's seeds, each written once; usable from any thread."""

    def __init__(self) -> None:
        self._directory = LaterRunDir()
        self._lock = threading.Lock()

    def provide(self, spec: VMSpec, image: Image) -> tuple[Image, Path | None]:
        """Return the image as it is with its seed, and the seed's file, named by its content; None if it has none.

        With a seed our key opens SSH, unless the image has a key of its own. Raises SpecError when ``user_data`` cannot
        be read, HostError when there is no room for keys or seed.
        """
        kind = seed_kind(spec, image)
        if kind is None:
            return image, None
        try:
            keys = obtain_keys(cache_dir() / "ssh")
            host_key = (openssh_host_key(keys), keys.host_public)
        except OSError as error:
            raise HostError(f"no SSH keys can be made in {cache_dir() / 'ssh'}: {error.strerror}") from error
        password = image.password if image.login == image.ssh_user else None  # a cloud image's default user
        account = Account(keys.client_public, password, host_key)
        try:
            seed = make_seed(kind, name=spec.name, account=account, user_data=spec.user_data, meta_data=spec.meta_data)
        except OSError as error:
            raise SpecError(
                f"vm(user_data={str(spec.user_data)!r}): {error.strerror}", keyword="user_data", value=spec.user_data
            ) from error
        if image.ssh_user is not None and image.ssh_key is None:
            image = replace(image, ssh_key=keys.client)
        return image, self._written(seed)

    def _written(self, seed: Seed) -> Path:
        with self._lock:
            path = self._directory.path / f"{seed.digest}.iso"
            if not path.exists():
                try:
                    seed.write(path)
                except OSError as error:
                    raise HostError(
                        f"no seed can be made in {path.parent}: {error.strerror}",
                        hint="set TMPDIR to a directory with more room",
                    ) from error
            return path

    def close(self) -> None:
        """Remove the seeds; raises OSError when something stays."""
        with self._lock:
            self._directory.remove()


def seed_kind(spec: VMSpec, image: Image) -> str | None:
    """Return the kind of a machine's seed, None for none; raises SpecError for data that no guest will look for."""
    data = next((keyword for keyword in ("user_data", "meta_data") if getattr(spec, keyword) is not None), None)
    chosen = spec.seed if spec.seed is not None else image.seed
    if chosen is False and data is not None:
        raise SpecError(
            f"vm({data}=…): image {image.label!r} looks for no seed; vm(seed=True) gives it one all the same",
            keyword=data,
        )
    if chosen is None:
        chosen = data is not None
    return "nocloud" if chosen is True else chosen or None
