"""Name → ``module:attribute``, loaded only when asked for.

A registry is a dict of strings, so that listing what exists costs no import and every entry can be
found with grep. Other distributions add entries through an entry-point group; a clash is refused
with both places named, because a silently replaced probe is a wrong number.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from nhip.errors import UnknownNameError
from nhip.extras import missing_extra

T = TypeVar("T")


class Registry(Generic[T]):
    """The known things of one kind (probe, store, model), by name.

    `what` is the word used in messages; `builtin` maps each name to ``module:attribute``; `group` is
    the entry-point group other distributions may add to.
    """

    def __init__(self, what: str, builtin: Mapping[str, str], *, group: str | None = None) -> None:
        self.what = what
        self._paths = dict(builtin)
        self._group = group

    def names(self) -> list[str]:
        """Every known name, sorted."""
        return sorted(self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def path(self, name: str) -> str:
        """The ``module:attribute`` behind `name`; UnknownNameError lists the known names."""
        paths = self._all()
        if name not in paths:
            near = difflib.get_close_matches(name, paths, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownNameError(
                f"{name!r} is no known {self.what}", remedy=f"{hint}known: {', '.join(sorted(paths))}"
            )
        return paths[name]

    def load(self, name: str) -> T:
        """The object itself, imported now; MissingExtraError when a module it needs is not."""
        module, _, attribute = self.path(name).partition(":")
        try:
            return cast(T, getattr(import_module(module), attribute))
        except ModuleNotFoundError as error:
            raise missing_extra(error) from error

    def _all(self) -> dict[str, str]:
        paths = dict(self._paths)
        if self._group is None:
            return paths
        for point in entry_points(group=self._group):
            if point.name in paths and paths[point.name] != point.value:
                raise UnknownNameError(
                    f"two {self.what}s are called {point.name!r}: {paths[point.name]} and {point.value}",
                    remedy="uninstall one of the two distributions or rename its entry point",
                )
            paths[point.name] = point.value
        return paths
