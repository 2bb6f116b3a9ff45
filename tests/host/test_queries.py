"""What a test may ask at collection: the real QEMU's answers, other versions' texts, and no QEMU at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kvm import host
from pytest_kvm.host import queries
from pytest_kvm.qemu.binary import candidates
from tests.qemu.fakes import ANSWERS, program

# As QEMU 10.0 prints it; 7.2, which begins such lines with "x86 ", is the real one here.
NEWER = """
case "$*" in
"-cpu help") cat <<'END'
Available CPUs:
  486                   (alias configured by machine type)
  EPYC-v4               AMD EPYC Processor
  host                  processor with all supported host features

Recognized CPUID flags:
  3dnow 3dnowext
END
exit;;
"-nic model=help") printf 'Available NIC models:\\ne1000\\nvirtio-net-pci\\n'; exit;;
"-accel help") printf 'Accelerators supported in QEMU binary:\\nkvm\\ntcg\\nxen\\n'; exit;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_KVM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_real_one() -> None:
    assert host.machines()["q35"].startswith("Standard PC (Q35")
    assert {"qemu64", "max", "host"} <= host.cpu_models().keys()
    assert not any(name.endswith(":") or name in ("3dnow", "x86") for name in host.cpu_models())
    assert host.nic_models()["e1000"] == "Intel Gigabit Ethernet"
    assert {"virtio-net-pci", "rtl8139"} <= host.nic_models().keys()
    assert host.devices()["virtio-blk-pci"] == host.Device("PCI", "Storage", "")
    assert host.devices()["e1000"] == host.Device("PCI", "Network", "Intel Gigabit Ethernet")
    assert host.devices()["nvdimm"].bus == ""
    assert host.accelerators()["tcg"] == ""


def test_another_version(tmp_path: Path, cache: Path) -> None:
    qemu = str(program(tmp_path / "qemu", NEWER + ANSWERS))
    assert host.cpu_models(qemu) == {
        "486": "(alias configured by machine type)",
        "EPYC-v4": "AMD EPYC Processor",
        "host": "processor with all supported host features",
    }
    assert host.machines(qemu) == {"q35": "Standard PC (alias of pc-q35-9.1)", "none": "empty machine"}
    assert host.nic_models(qemu) == {"e1000": "", "virtio-net-pci": ""}
    assert host.devices(qemu)["pvpanic-pci"] == host.Device("PCI", "", "it")
    assert host.accelerators(qemu)["xen"] == "not tried: this system's is kvm"


def test_qemu_is_asked_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.host.remembering._SETTLED", -1.0)
    qemu = str(program(tmp_path / "qemu", f'echo "$*" >>{tmp_path}/log\n{NEWER}{ANSWERS}'))
    for _ in range(3):
        host.cpu_models(qemu)
    assert (tmp_path / "log").read_text().splitlines().count("-cpu help") == 1


QUERIES = [queries.machines, queries.cpu_models, queries.nic_models, queries.devices, queries.accelerators]


@pytest.mark.parametrize("query", [*QUERIES, queries.firmware])
def test_without_qemu(query: object, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kvm.qemu.binary.candidates", lambda: ["no-such-qemu"])
    assert candidates() != []
    assert callable(query)
    with pytest.warns(UserWarning, match="no QEMU found") as warned:
        assert not query()
    assert {Path(warning.filename) for warning in warned} == {Path(__file__)}


def test_a_qemu_that_does_not_answer_that(tmp_path: Path, cache: Path) -> None:
    qemu = str(program(tmp_path / "qemu", ANSWERS))
    with pytest.warns(UserWarning, match=r"-cpu help failed with status 64"):
        assert host.cpu_models(qemu) == {}


def test_in_parametrize(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from pytest_kvm import host

        @pytest.mark.parametrize("model", [name for name in host.nic_models() if name.startswith("e1000e")])
        def test_model(model):
            assert model == "e1000e"
    """)
    pytester.runpytest_inprocess("-v").stdout.fnmatch_lines(["*::test_model[[]e1000e] PASSED*"])


def test_the_import_is_light() -> None:
    code = "import sys; from pytest_kvm import host; print('subprocess' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
