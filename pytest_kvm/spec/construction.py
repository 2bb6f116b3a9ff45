"""Dataclasses that are checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, ClassVar, Protocol, TypeVar

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.postponing import is_postponing
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.values import Check
from pytest_kvm.spec.wording import Rejected, about, did_you_mean, field_of, shown


class Checkable(Protocol):
    """A dataclass whose ``_check`` raises SpecError."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _check(self) -> None: ...


Declared = TypeVar("Declared", bound=Checkable)


def checked(call: str, *, postponable: bool = False) -> Callable[[type[Declared]], type[Declared]]:
    """Have the dataclass check its keywords and values when it is made; ``call`` names it in errors."""

    def decorate(cls: type[Declared]) -> type[Declared]:
        construct = cls.__init__
        names = [field.name for field in fields(cls) if field.init]

        @wraps(construct)
        def __init__(self: Declared, /, *args: object, **kwargs: object) -> None:
            construct(self, *args, **{key: value for key, value in kwargs.items() if key in names})
            try:
                check_names(call, kwargs, names)
                self._check()
            except SpecError as error:
                if not (postponable and is_postponing()):
                    raise
                object.__setattr__(self, "_problem", error)

        cls.__init__ = __init__  # type: ignore[assignment]
        return cls

    return decorate


def raise_postponed(declared: object) -> None:
    """Raise the error that was kept when ``declared`` was made, if there is one."""
    problem = getattr(declared, "_problem", None)
    if isinstance(problem, SpecError):
        raise SpecError(str(problem), keyword=problem.keyword, value=problem.value)


def check_names(call: str, given: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise SpecError for the first keyword that is not among ``names``."""
    names = list(names)
    for keyword, value in given.items():
        if keyword not in names:
            raise SpecError(
                f"{call}({keyword}=…): unknown keyword '{keyword}'; {did_you_mean(keyword, names)}",
                keyword=keyword,
                value=value,
            )


def check_values(call: str, given: Mapping[str, object], checks: Mapping[str, Check]) -> None:
    """Raise SpecError for the first value that its check rejects, except those that a fixture will give."""
    for keyword, value in given.items():
        with about(field_of(call, keyword, value), keyword=keyword, value=value):
            try:
                if not holds_reference(value):
                    checks[keyword](value)
            except RecursionError:
                raise Rejected("it is nested too deeply") from None


def short_repr(declared: Checkable, *, implied: Mapping[str, object]) -> str:
    """Return the call that makes an equal object, without defaults and what is ``implied``."""
    parts = []
    for field in fields(declared):
        value = getattr(declared, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        default = implied.get(field.name, default)
        if value != default:
            parts.append(f"{field.name}={shown(value)}")
    return f"{type(declared).__name__}({', '.join(parts)})"
