"""Defects put back: each replaces one attribute of the project, and the seeds must find it.

A mutant whose attribute is gone fails: a test applies them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, isfunction, signature
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A defect.

    Args:
        name: what it is.
        target: MODULE:ATTRIBUTE or MODULE:CLASS.ATTRIBUTE.
        make: gives the replacement, told the original.
    """

    name: str
    target: str
    make: Callable[[Any], Any]

    @property
    def _owner(self) -> tuple[Any, str]:
        module, _, path = self.target.partition(":")
        owner: Any = import_module(module)
        *classes, attribute = path.split(".")
        for name in classes:
            owner = getattr(owner, name)
        if attribute not in vars(owner):
            raise AttributeError(f"mutant {self.name!r}: there is no {self.target}")
        return owner, attribute

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the defect back for a while.

        Raises:
            AttributeError: there is no such attribute any more.
            TypeError: it is a function that takes other arguments: its calls would just fail.
        """
        owner, attribute = self._owner
        original = vars(owner)[attribute]
        replacement = self.make(original)
        if not _takes_as_much(replacement, original):
            raise TypeError(f"mutant {self.name!r} takes other arguments than {self.target}")
        setattr(owner, attribute, replacement)
        try:
            yield
        finally:
            setattr(owner, attribute, original)


def _takes_as_much(replacement: Any, original: Any) -> bool:
    if not (isfunction(replacement) and isfunction(original)):
        return True
    mine, its = (list(signature(one).parameters.values()) for one in (replacement, original))
    return any(p.kind is Parameter.VAR_POSITIONAL for p in mine) or len(mine) == len(its)


def instead(value: Any) -> Callable[[Any], Any]:
    """Return what replaces an original by `value`, whatever it was."""
    return lambda _: value


def every() -> list[Mutant]:
    """Return all mutants."""
    found: list[Mutant] = []
    for name in ("clients", "engine", "planning", "records", "workers"):
        found += import_module(f"tests.chaos.mutants.{name}").MUTANTS
    return found
