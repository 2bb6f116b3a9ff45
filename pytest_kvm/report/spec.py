"""``spec.json``: what the machine was asked to be, with all defaults, and without what is secret."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass

from pytest_kvm.spec.vm import VMSpec

# Passwords of images; in meta-data and properties also whatever sounds like one.
_SECRET = re.compile("passw|passphrase|secret|token|private", re.IGNORECASE)
_CREDENTIALS = re.compile("(?<=//)[^/@]*@")
_HIDDEN = "(not kept)"


def spec_json(spec: VMSpec) -> str:
    """Return a spec as a JSON object with its fields; paths and patterns are texts in it.

    Passwords are not in it, nor is the text of ``user_data``: who may read what is left of a test need not be who may
    log in.
    """
    made = _plain(spec)
    if isinstance(made, dict) and spec.user_data is not None and not isinstance(spec.user_data, os.PathLike):
        made["user_data"] = _HIDDEN
    return f"{json.dumps(made, indent=2)}\n"


def _plain(value: object, key: str = "") -> object:
    if value is not None and _SECRET.search(key):
        return _HIDDEN
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name), field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item, str(name)) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else _text(value)


def _text(value: object) -> str:
    if isinstance(value, re.Pattern):
        return f"re.compile({value.pattern!r})"
    if isinstance(value, (str, os.PathLike)):
        return _CREDENTIALS.sub(f"{_HIDDEN}@", os.fspath(value))
    return repr(value)
