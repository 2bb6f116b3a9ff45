"""Get packages from an archive without apt: every byte is verified, from the archive's signature on."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable, SpecError
from pytest_kvm.host.rundir import make_run_dir
from pytest_kvm.images.builtin.distribution import Distribution
from pytest_kvm.images.builtin.packages import Package, PackageIndex, parse_fields
from pytest_kvm.images.fetching.checksum import Checksum
from pytest_kvm.images.fetching.mirror import is_web_address
from pytest_kvm.images.fetching.patience import Patience
from pytest_kvm.images.fetching.web import download, read
from pytest_kvm.images.progress import Report, download_bar, say_nothing

_RELEASE_LIMIT = 4 * 1024 * 1024  # bytes of an InRelease file, whose size nothing announces
_PATIENCE = Patience(silence=60.0)
_HINT = (
    "try again later, or another archive with --kvm-archive=URL, and check the network (proxies come from HTTPS_PROXY"
    " and HTTP_PROXY)"
)


class ArchiveSource:
    """A distribution's archive at an http(s) ``address``; ``keyring`` replaces the distribution's own keys.

    Raises SpecError if the address is of another kind.
    """

    def __init__(
        self,
        distribution: Distribution,
        address: str,
        *,
        keyring: str | None = None,
        report: Report = say_nothing,
    ) -> None:
        if not is_web_address(address):
            raise SpecError(
                f"archive {address!r} is not an http or https address, such as http://HOST/debian",
                keyword="archive",
                value=address,
            )
        self._distribution = distribution
        self._address = address.rstrip("/")
        self._keyring = keyring or distribution.keyring
        self._report = report

    def index(self, suite: str) -> PackageIndex:
        """Fetch, verify and return a suite's index. Raises ImageUnavailable."""
        self._report(f"fetching the package index of {suite} from {self._address}")
        base = f"{self._address}/dists/{suite}"
        release = self._verified(_read(f"{base}/InRelease", _RELEASE_LIMIT), suite)
        return PackageIndex([self._packages(base, component, release) for component in self._distribution.components])

    def fetch(self, suite: str, packages: Sequence[Package], into: Path) -> None:
        """Download packages into the directory ``into``, and verify them. Raises ImageUnavailable."""
        self._report(f"fetching from {self._address}")
        with download_bar(sum(package.size for package in packages)) as show:
            done = 0
            for package in packages:
                url = f"{self._address}/{urllib.parse.quote(package.filename, safe='/+~:')}"

                def show_all(size: int, before: int = done) -> None:
                    show(before + size)

                download(
                    [url],
                    into / f"{package.sha256}.deb",
                    checksum=Checksum("sha256", package.sha256),
                    publisher="archive",
                    limit=package.size,
                    show=show_all,
                    patience=_PATIENCE,
                    hint=_HINT,
                )
                done += package.size

    def _verified(self, signed: bytes, suite: str) -> dict[str, str]:
        """Return the fields of a Release file, as far as the signature covers them."""
        release = parse_fields(self._signed_text(signed, suite))
        if suite not in {release.get("Suite"), release.get("Codename")}:
            names = f"{release.get('Suite', '?')}/{release.get('Codename', '?')}"
            raise ImageUnavailable(f"archive {self._address} gave the suite {names} when asked for {suite}")
        until = release.get("Valid-Until")
        if until is not None:
            try:
                expired = parsedate_to_datetime(until) < datetime.now(UTC)
            except (TypeError, ValueError) as error:
                raise ImageUnavailable(f"suite {suite} has an unreadable Valid-Until: {until!r}") from error
            if expired:
                raise ImageUnavailable(
                    f"suite {suite} of archive {self._address} was valid until {until} only",
                    hint="use a mirror that is kept up to date, and check this host's clock",
                )
        return release

    def _signed_text(self, signed: bytes, suite: str) -> str:
        if not Path(self._keyring).is_file():
            raise ImageUnavailable(
                f"the keys that verify the archive {self._address}, {self._keyring}, are not there",
                hint=f"install {self._distribution.keyring_package}, or name the keys with --kvm-keyring",
            )
        with make_run_dir() as folder:
            source, text = folder / "InRelease", folder / "Release"
            source.write_bytes(signed)
            command = [
                "gpgv",
                "--homedir",
                str(folder),
                "--keyring",
                str(Path(self._keyring).absolute()),
                "--status-fd",
                "1",
            ]
            try:
                answer = subprocess.run(
                    [*command, "--output", str(text), str(source)],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                )
            except FileNotFoundError as error:
                raise ImageUnavailable(
                    f"archive {self._address} cannot be verified: gpgv is not installed",
                    hint="install the package gpgv",
                ) from error
            verdicts = [line.split()[1] for line in answer.stdout.decode().splitlines() if line.count(" ") > 0]
            # Archives sign with old and new keys at once: one good signature is enough, a bad one is one too
            # many.
            if "GOODSIG" not in verdicts or "BADSIG" in verdicts or not text.is_file():
                said = answer.stderr.decode(errors="replace").strip().splitlines()
                raise ImageUnavailable(
                    f"suite {suite} of archive {self._address} has no good signature"
                    f" by a key in {self._keyring}"
                    f" ({said[-1] if said else 'gpgv did not say why'})",
                    hint="name the archive's keys with --kvm-keyring",
                )
            return text.read_text(encoding="utf-8")

    def _packages(self, base: str, component: str, release: dict[str, str]) -> str:
        """Return the text of a component's Packages file, verified by the Release file's hash."""
        listed = {}
        for line in release.get("SHA256", "").splitlines():
            words = line.split()
            if len(words) == 3 and words[1].isascii() and words[1].isdigit() and len(words[1]) < 19:
                listed[words[2]] = (words[0], int(words[1]))
        name = f"{component}/binary-{self._distribution.architecture}/Packages"
        for ending, expand in ((".xz", lzma.decompress), (".gz", gzip.decompress)):
            if name + ending in listed:
                expected, size = listed[name + ending]
                data = _read(f"{base}/{name}{ending}", size)
                found = hashlib.sha256(data).hexdigest()
                if found != expected:
                    raise _wrong(f"{base}/{name}{ending}", f"SHA-256 {expected}", found)
                try:
                    return expand(data).decode()
                except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                    raise ImageUnavailable(f"{base}/{name}{ending} cannot be unpacked: {error}") from error
        raise ImageUnavailable(f"archive {self._address} offers neither {name}.xz nor {name}.gz")


def _read(url: str, limit: int) -> bytes:
    return read(url, limit, publisher="archive", patience=_PATIENCE, hint=_HINT)


def _wrong(url: str, expected: str, found: str) -> ImageUnavailable:
    return ImageUnavailable(
        f"{url} is not what the archive announces: expected {expected}, got {found}",
        hint="the mirror is being updated or damaged: try again later, or another with --kvm-archive=URL",
    )
