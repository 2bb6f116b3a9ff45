"""How long is a web server waited for, and how often is it asked again?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The limits of a download, all in seconds.

    A server may be silent for ``silence``; slow is no fault. After a failure that may pass it is asked again after
    each of the ``pauses``.
    """

    silence: float = 30.0
    pauses: tuple[float, ...] = (0.5, 1.5, 4.5)
