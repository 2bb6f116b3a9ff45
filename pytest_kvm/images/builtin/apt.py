"""Get packages by apt, in private directories: any suite, any user, nothing of the host's changed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_kvm.errors import ImageUnavailable
from pytest_kvm.images.builtin.distribution import Distribution
from pytest_kvm.images.builtin.packages import Package, PackageIndex
from pytest_kvm.images.progress import Report, download_bar, say_nothing
from pytest_kvm.qemu.process import describe_end, dying_with_parent

_LITTLE = 1 << 20  # bytes
# Read with -c, after the host's own configuration: its proxies, credentials and time limits stay in force,
# and "#clear" undoes what would act outside our directories (hooks) or depends on the host's suite.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
#clear Acquire::Languages;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
Acquire::GzipIndexes "false";
Acquire::Languages {{ "none"; }};
Acquire::PDiffs "false";
Acquire::Retries "2";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{directory}/state";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Cache::archives "{directory}/cache/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Log "{directory}/log";
"""


class AptSource:
    """A distribution's archive as apt reaches it.

    ``directory`` is for apt's lists and state, ``keyring`` replaces the distribution's own.
    """

    def __init__(
        self,
        distribution: Distribution,
        directory: Path,
        *,
        keyring: str | None = None,
        report: Report = say_nothing,
    ) -> None:
        self._distribution = distribution
        self._directory = directory
        self._keyring = keyring or distribution.keyring
        self._report = report

    def index(self, suite: str) -> PackageIndex:
        """Fetch and return a suite's index. Raises ImageUnavailable, and OSError if the disk is full."""
        self._report(f"fetching the package index of {self._distribution.origin} {suite}")
        configuration = self._prepare(suite)
        self._apt(["update", "-c", str(configuration)], f"fetch the package index of {suite}")
        listed = self._apt(
            ["indextargets", "-c", str(configuration), "--format", "$(FILENAME)", "Created-By: Packages"],
            f"say where the package index of {suite} is",
        )
        try:
            texts = [Path(name).read_text(encoding="utf-8") for name in listed.splitlines() if name]
        except OSError as error:
            raise ImageUnavailable(f"the package index of {suite} cannot be read: {error}") from error
        return PackageIndex(texts)

    def fetch(self, suite: str, packages: Sequence[Package], into: Path) -> None:
        """Download packages to files of any name in the directory ``into``.

        Raises ImageUnavailable, and OSError if the disk is full.
        """
        configuration = self._prepare(suite)
        if not any((self._directory / suite / "lists").glob("*Packages*")):
            self._apt(["update", "-c", str(configuration)], f"fetch the package index of {suite}")
        wanted = [f"{package.name}={package.version}" for package in packages]
        command = ["apt-get", "download", "-q", "-c", str(configuration), *wanted]
        # Its words go to a file: a pipe that nobody empties while the download is watched could fill up.
        with tempfile.TemporaryFile() as words, download_bar(sum(p.size for p in packages)) as show:
            process = self._start(command, words.fileno(), into)
            try:
                while process.poll() is None:
                    show(sum(entry.stat().st_size for entry in os.scandir(into)))
                    _wait(process, seconds=0.2)
            except BaseException:
                process.kill()
                process.wait()
                raise
            words.seek(0)
            if process.returncode != 0:
                names = ", ".join(package.name for package in packages)
                said = words.read().decode(errors="replace")
                raise self._failed(f"download {names} from {suite}", said, process.returncode)

    def _prepare(self, suite: str) -> Path:
        """Write apt's configuration for a suite and return its path."""
        if not Path(self._keyring).is_file():
            raise ImageUnavailable(
                f"the keys of {self._distribution.origin}'s packages, {self._keyring}, are not there",
                hint=f"install {self._distribution.keyring_package}, or name the keys with --kvm-keyring",
            )
        directory = self._directory / suite
        for name in ("lists/partial", "cache/archives/partial", "state", "log"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        options = f"arch={self._distribution.architecture} lang=none target=Packages signed-by={self._keyring}"
        components = " ".join(self._distribution.components)
        (directory / "sources.list").write_text(f"deb [{options}] {self._archive()} {suite} {components}\n")
        configuration = directory / "apt.conf"
        configuration.write_text(
            _CONFIGURATION.format(directory=directory, architecture=self._distribution.architecture)
        )
        return configuration

    def _archive(self) -> str:
        """Return the archive's address, out of the host's own configuration."""
        listed = self._apt(
            ["indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(RELEASE)", "Created-By: Packages"],
            "list the archives that this host is configured with",
        )
        address = choose_archive(listed, self._distribution)
        if address is None:
            raise ImageUnavailable(
                f"apt on this host is not configured with an archive of {self._distribution.origin},"
                " which the built-in guest is made from",
                hint="name one with --kvm-archive=URL, or use --kvm-image=cirros",
            )
        return address

    def _apt(self, arguments: list[str], purpose: str) -> str:
        with tempfile.TemporaryFile() as words:
            process = self._start(["apt-get", "-q", *arguments], words.fileno(), None, subprocess.PIPE)
            try:
                output, _ = process.communicate()
            except BaseException:
                process.kill()
                process.wait()
                raise
            words.seek(0)
            said = words.read().decode(errors="replace")
        if process.returncode != 0:
            raise self._failed(purpose, said, process.returncode)
        return bytes(output).decode()

    def _start(
        self, command: list[str], stderr: int, directory: Path | None, stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        if shutil.which(command[0]) is None:
            raise ImageUnavailable("apt-get, which fetches the built-in guest, is not installed")
        return subprocess.Popen(
            dying_with_parent(command),
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def _failed(self, purpose: str, said: str, returncode: int) -> Exception:
        full = os.strerror(errno.ENOSPC)
        # It maps its files: without room for them it may be killed (SIGBUS) before it says so.
        if full in said or shutil.disk_usage(self._directory.parent).free < _LITTLE:
            shutil.rmtree(self._directory, ignore_errors=True)  # it can be fetched again, and others need the room
            return OSError(errno.ENOSPC, full, str(self._directory))
        errors = [line.removeprefix("E: ") for line in said.splitlines() if line.startswith("E: ")]
        reason = "; ".join(errors) or said.strip() or f"it {describe_end(returncode)}"
        return ImageUnavailable(
            f"apt cannot {purpose}: {reason}",
            hint="check the network and this host's apt configuration, or name an archive with --kvm-archive=URL",
        )


def choose_archive(targets: str, distribution: Distribution) -> str | None:
    """Return the address of a distribution's main archive, from lines "address component release".

    None if it is not among them.
    Additions such as ``trixie-updates`` and ``trixie-security`` can live at other addresses and are passed
    over.
    """
    releases = {*distribution.suites, *distribution.releases}
    for line in targets.splitlines():
        words = line.split()
        if len(words) != 3:
            continue
        address, component, release = words
        if component == distribution.components[0] and release in releases and not address.startswith("cdrom:"):
            return address
    return None


def _wait(process: subprocess.Popen[bytes], *, seconds: float) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return
