"""Tests on several kernels, their modules, and tests that require something of them: on real guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvm import VM, MachineError, SpecError
from pytest_kvm.images.builtin.vmlinux import unpacked
from pytest_kvm.images.kernels.source import find_kernel
from pytest_kvm.plugin.factories import VMFactory
from tests.guests.kernels import make_tree
from tests.outcomes import run_session

EXAMPLE = Path(__file__).parents[2] / "examples" / "test_kernel_build.py"
FURTHER = """
import pytest

@pytest.mark.vm(memory="320M")
def test_disk(vm_factory):
    vm = vm_factory(drives=[])
    vm.modprobe("loop")

@pytest.fixture(scope="session")
def shared(vm_session_factory):
    return vm_session_factory("shared")

def test_shared(shared, vm):
    assert shared.kernel.release == vm.kernel.release

@pytest.mark.vm(image=None)
def test_bare(vm):
    assert vm.spec.kernel is None
"""


@pytest.mark.parametrize("workers", [pytest.param([], marks=pytest.mark.slow), ["-n", "2"]], ids=["alone", "xdist"])
def test_the_same_tests_on_two_kernels(pytester: pytest.Pytester, installed_kernel: Path, workers: list[str]) -> None:
    label = find_kernel(installed_kernel).label
    broken = pytester.path / "vmlinuz-broken"
    broken.write_bytes(b"not a kernel")
    options = [f"--kvm-kernel={installed_kernel}", "--kvm-kernel=tiny:trixie", f"--kvm-kernel={broken}"]
    pytester.makepyfile(test_example=EXAMPLE.read_text())
    session = run_session(pytester, FURTHER, *options, "--kvm-timeout=60", *workers)
    of_example = ("test_it_boots", "test_a_module_comes_and_goes", "test_what_it_traces")
    names = (*of_example, "test_disk", "test_shared", "test_bare")
    for name in names:
        assert session.outcome(f"{name}[{label}]") == "passed", session.result.stdout.str()
        assert session.outcome(f"{name}[tiny:trixie]") == "passed"
    for name in names[:-1]:  # it fails its own tests only
        assert session.outcome(f"{name}[vmlinuz-broken]") in ("setup failed", "call failed")
    assert f"kvm: kernels {label}, tiny:trixie, vmlinuz-broken" in session.result.stdout.str()


def test_kernels_of_a_pattern_and_the_ini_file(pytester: pytest.Pytester, installed_kernel: Path) -> None:
    for name in ("one", "two"):
        (pytester.path / "kernels" / name).mkdir(parents=True)
        kernel = find_kernel(installed_kernel)
        (pytester.path / "kernels" / name / "vmlinuz").write_bytes(kernel.file.read_bytes())
    pytester.makeini("[pytest]\nkvm_kernel =\n    kernels/*\n")
    pytester.makepyfile(test_it="def test_it(vm): pass")
    result = pytester.runpytest("--collect-only", "-q")
    result.stdout.fnmatch_lines(["test_it.py::test_it[[]one]", "test_it.py::test_it[[]two]"])


def test_a_pattern_that_matches_nothing(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--kvm-kernel=kernels/*")
    result.stderr.fnmatch_lines(["ERROR: --kvm-kernel=kernels/[*]: expected a kernel, or a pattern of some; *"])
    assert result.ret == 4


@pytest.fixture(scope="session")
def other(installed_kernel: Path, vm_session_factory: VMFactory) -> VM:
    return vm_session_factory("other", kernel=installed_kernel)


def test_what_is_known_of_a_kernel(other: VM, installed_kernel: Path) -> None:
    known = find_kernel(installed_kernel)
    assert other.run("uname -r").stdout.strip() == other.kernel.release == known.release
    assert other.run("uname -v").stdout.strip() == other.kernel.version
    assert other.kernel.numbers[:2] >= (6, 1)
    assert other.kernel.config["CONFIG_VIRTIO_NET"] in ("y", "m")
    assert other.kernel.taint == frozenset()
    assert other.kernel.has_module("virtio-net")
    assert not other.kernel.has_module("no_such_module")


def test_what_is_known_of_the_built_in_guests(vm: VM) -> None:
    assert vm.run("uname -r").stdout.strip() == vm.kernel.release
    assert vm.kernel.config["CONFIG_64BIT"] == "y"
    assert vm.kernel.has_module("virtio_net")
    assert vm.kernel.has_module("dummy")
    vm.modprobe("dummy")  # out of the kernel's package: the guest has what QEMU's devices need
    assert "dummy" in vm.run("cat /proc/modules").stdout


def test_modules(vm_factory: VMFactory, installed_kernel: Path) -> None:
    vm = vm_factory(kernel=installed_kernel)
    # dummy is not in the guest: it comes from the host; so does what it needs.
    vm.modprobe("dummy", numdummies=2)
    assert vm.run("ls -d /sys/class/net/dummy*").stdout.split() == ["/sys/class/net/dummy0", "/sys/class/net/dummy1"]
    vm.modprobe("dummy")
    vm.rmmod("dummy")
    with pytest.raises(MachineError, match=r"^VM 'vm': module 'dummy' cannot be unloaded: "):
        vm.rmmod("dummy")
    with pytest.raises(MachineError, match=r"module 'nonsense' cannot be loaded into kernel 6\..*no such module"):
        vm.modprobe("nonsense")
    kernel = find_kernel(installed_kernel)
    assert kernel.modules is not None
    file = kernel.modules.root / kernel.modules.paths["dummy"]
    vm.modprobe(str(file))
    assert "dummy" in vm.run("cat /proc/modules").stdout
    with pytest.raises(SpecError, match=r"^modprobe\('.*/none\.ko'\): "):
        vm.modprobe(str(installed_kernel / "none.ko"))
    with pytest.raises(MachineError, match=r"module 'dummy' cannot be loaded into kernel"):
        vm.modprobe(str(file))  # it is there


def test_a_build_tree(vm_factory: VMFactory, installed_kernel: Path, tmp_path: Path) -> None:
    tree = make_tree(installed_kernel, tmp_path / "linux")
    vm = vm_factory(kernel=tree, append="testing=1")
    assert vm.run("uname -r").stdout.strip() == find_kernel(installed_kernel).release
    assert "testing=1" in vm.run("cat /proc/cmdline").stdout
    vm.modprobe("dummy")


def test_an_elf_file(vm_factory: VMFactory, tmp_path: Path) -> None:
    """QEMU boots a vmlinux through its PVH entry."""
    from pytest_kvm.images.builtin.tiny import tiny_image

    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(unpacked(Path(str(tiny_image().kernel)).read_bytes()) or b"")
    kernel = find_kernel(vmlinux)
    vm = vm_factory(kernel=vmlinux)
    assert vm.run("uname -r").stdout.strip() == kernel.release
    assert vm.run("uname -v").stdout.strip() == kernel.version


REQUIRES = """
import pytest

@pytest.mark.vm_requires(version=">=6.1", config=["CONFIG_VIRTIO_NET", "CONFIG_64BIT=y", "CONFIG_NO_SUCH=n"])
@pytest.mark.vm_requires(module="virtio_net", device="virtio-net-pci", accel="tcg", qemu=">=7")
def test_all_is_there(vm): pass

@pytest.mark.vm_requires(version=[">=6.1", "<6.2"])
def test_version(vm): pass

@pytest.mark.vm_requires(config="CONFIG_NO_SUCH")
def test_config(vm): pass

@pytest.mark.vm_requires(config="CONFIG_64BIT=m")
def test_config_as(vm): pass

@pytest.mark.vm_requires(module="no_such_module")
def test_module(vm_factory): vm_factory()

@pytest.mark.vm_requires(device="no-such-device")
def test_device(vms): pass

@pytest.mark.vm_requires(qemu=">=99")
def test_qemu(vm_factory): raise AssertionError

@pytest.mark.vm_requires(accel="hvf")
def test_accel(vm): pass

@pytest.mark.vm_requires(version=">=6.1")
@pytest.mark.vm(autostart=False)
def test_one_that_is_off(vm): pass
"""


def test_what_a_test_requires(pytester: pytest.Pytester) -> None:
    session = run_session(pytester, REQUIRES, "-rs", "-n", "2")
    reasons = {
        "test_version": r"needs version <6.2: the kernel is 6.12.",
        "test_config": "needs config CONFIG_NO_SUCH: kernel 6.12.",
        "test_config_as": "has CONFIG_64BIT=y",
        "test_module": "needs module no_such_module: kernel 6.12.",
        "test_device": "needs device no-such-device: QEMU ",
        "test_qemu": "needs qemu >=99: this is QEMU ",
        "test_accel": "needs accel hvf: not tried: this system's is kvm",
    }
    said = session.result.stdout.str()
    for name in session.tests:
        if name in ("test_all_is_there", "test_one_that_is_off"):
            assert session.outcome(name) == "passed", session.text(name)
        else:
            assert session.outcome(name) in ("setup skipped", "call skipped"), session.text(name)
            assert reasons[name] in said
    session.result.assert_outcomes(passed=2, skipped=7)


@pytest.mark.parametrize(
    ("mark", "error"),
    [
        ("()", r"vm_requires: expected accel=, config=, .*; got vm_requires\(\)"),
        ("('x')", r"got vm_requires\('x'\)"),
        ("(kernel='x')", r"got vm_requires\(kernel='x'\)"),
        ("(version='new')", r"vm_requires\(version='new'\): expected versions such as '>=6\.1'"),
        ("(config='KASAN')", r"vm_requires\(config='KASAN'\): expected an option such as 'CONFIG_VIRTIO_FS'"),
        ("(module=[3])", r"vm_requires\(module=3\): expected a text, or several"),
    ],
)
def test_what_cannot_be_required(mark: str, error: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.vm_requires{mark}\ndef test_it(vm): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines([rf".*::test_it: .*{error}"])
