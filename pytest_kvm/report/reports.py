"""All that a machine's kernel reported, in full and decoded, as a text."""

from __future__ import annotations

from pytest_kvm.machine.evidence import Evidence


def reports_text(evidence: Evidence) -> str:
    """Return the panics and splats with the lines of source, as far as they are known; "" if there were none."""
    return "\n".join(
        f"{finding.title}\n\n{finding.decoded.text}\n" for finding in evidence.findings if finding.text.strip()
    )
