"""``--kvm-start=both``: every test with a machine runs twice, on booted machines and on clones."""

from __future__ import annotations

import pytest

from pytest_kvm.errors import SpecError
from pytest_kvm.plugin.collection import MARKER
from pytest_kvm.plugin.options import OPTIONS
from pytest_kvm.plugin.values import BOTH

# The private fixture behind every fixture that makes machines.
FIXTURE = "_vm_start"
# A clone that is not possible is a boot, as always: its reason is in vm.started.
VARIANTS = {"boot": "boot", "clone": "auto"}


def run_both(metafunc: pytest.Metafunc) -> None:
    """Let a test with a machine run once for each way in which that may begin.

    A test whose nearest marker says ``start=`` runs once, as it says.
    """
    if metafunc.config.stash[OPTIONS].start != BOTH:
        return
    said = [mark.kwargs["start"] for mark in metafunc.definition.iter_markers(MARKER) if "start" in mark.kwargs]
    variants = [said[0]] if said and said[0] in VARIANTS else list(VARIANTS)
    metafunc.parametrize(FIXTURE, variants, indirect=True, scope="session")


def variant_of(request: pytest.FixtureRequest) -> str | None:
    """Return how machines begin that leave it open, None for as they say; raises SpecError in a test run once."""
    if request.config.stash[OPTIONS].start != BOTH:
        return None
    if not hasattr(request, "param"):
        raise SpecError(
            "--kvm-start=both: the test asks for a machine at run time (request.getfixturevalue), so nobody knew that "
            "it has to run twice; take the fixture as an argument"
        )
    return VARIANTS[str(request.param)]
