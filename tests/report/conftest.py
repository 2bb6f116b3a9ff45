"""Evidence of machines that never were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kvm.machine.evidence import Evidence
from pytest_kvm.machine.starting import Started
from pytest_kvm.qemu.cmdline import build
from pytest_kvm.spec.vm import VMSpec
from tests.qemu.fakes import binary
from tests.qemu.plans import plan

Maker = Callable[..., Evidence]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Makes the evidence of a machine that was a clone, with files in a folder of its own."""

    def make(name: str = "vm", **changes: object) -> Evidence:
        folder = tmp_path / f"run-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "console.log").write_bytes(b"12:00:00 \x1b[31mraw\xff\n")
        (folder / "qmp.jsonl").write_text("3\n")
        (folder / "qmp.jsonl.older").write_text("1\n2\n")
        spec = VMSpec(name=name, image=None)
        planned = plan(spec)
        evidence = Evidence(
            name=name,
            spec=spec,
            plan=planned,
            binary=binary(),
            command=build(planned, binary()),
            started=Started("clone", 0.125),
            files={
                "console.log": [folder / "console.log"],
                "qemu.log": [folder / "qemu.log"],
                "qmp.jsonl": [folder / "qmp.jsonl.older", folder / "qmp.jsonl"],
            },
            console="the end\n",
            all_logged=True,
            commands=[],
            findings=[],
            troubles=[],
        )
        return replace(evidence, **changes)  # type: ignore[arg-type]  # a test's own words

    return make
