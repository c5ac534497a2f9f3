"""A group of ICMP targets that share one schedule: who they are and how they are probed. Without numpy."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

from nhip.errors import ConfigError
from nhip.measurement import Target, TargetClass
from probes.names import is_host

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NO_ID = re.compile(r"[^a-z0-9._-]+")


class TargetList(Sequence[Target]):
    """Many targets in little memory: one text of all of them, taken apart when one is asked for."""

    def __init__(self, targets: Iterable[Target]) -> None:
        parts, self._ends, end = [], array("Q", [0]), 0
        for target in targets:
            part = f"{target.id} {target.host} {target.target_class.value}"
            end += len(part)
            parts.append(part)
            self._ends.append(end)
        self._text = "".join(parts)

    def as_text(self) -> str:
        """One line a target, as :func:`parse_targets` reads them."""
        return "\n".join(self._text[first:last] for first, last in pairwise(self._ends))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> TargetList: ...
    def __getitem__(self, index: int | slice) -> Target | TargetList:
        if isinstance(index, slice):
            return TargetList(self[position] for position in range(*index.indices(len(self))))
        position = range(len(self))[index]
        identifier, host, target_class = self._text[self._ends[position] : self._ends[position + 1]].split(
            " "
        )
        return Target(id=identifier, host=host, target_class=TargetClass(target_class))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Targets and how often, with what and how long each is asked."""

    id: str
    targets: TargetList
    interval_seconds: float = 1.0
    poisson: bool = True
    window_seconds: float = 60.0
    size_octets: int = 56
    dscp: int = 0
    dont_fragment: bool = False
    loss_threshold_seconds: float = 2.0

    @property
    def window_rounds(self) -> int:
        """How many probes make one record of a target."""
        return max(1, round(self.window_seconds / self.interval_seconds))

    @property
    def probes_per_second(self) -> float:
        """What the whole group sends on average."""
        return len(self.targets) / self.interval_seconds


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    words: list[str]


def read_targets(path: Path, *, bare: bool = False) -> TargetList:
    """The targets of a file, one a line: ``id host [target_class]``; ``#`` begins a remark.

    ConfigError names file, line and what to write instead.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_targets(lines, str(path), bare=bare)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}", remedy="name a file with one target a line"
        ) from error


def parse_targets(lines: Iterable[str], name: str, *, bare: bool = False) -> TargetList:
    """The targets in `lines`; with `bare` a line may be a host alone, whose id is then made from it."""
    seen: set[str] = set()

    def found() -> Iterator[Target]:
        for line in _lines(lines):
            target = _target(line, name, bare=bare)
            if target.id in seen:
                raise ConfigError(
                    f"{name}:{line.number}: {target.id!r}: stands there twice",
                    remedy="give each target its own id",
                )
            seen.add(target.id)
            yield target

    targets = TargetList(found())
    if not targets:
        raise ConfigError(f"{name}: holds no target", remedy="write one a line: id host [target_class]")
    return targets


def _lines(lines: Iterable[str]) -> Iterator[_Line]:
    for number, line in enumerate(lines, start=1):
        if words := line.partition("#")[0].split():
            yield _Line(number, words)


def _target(line: _Line, name: str, *, bare: bool) -> Target:
    where, words = f"{name}:{line.number}", line.words
    if bare and len(words) == 1:
        words = [_NO_ID.sub("-", words[0].lower().replace(":", "-")).strip("-.")[:64] or "target", words[0]]
    if not 2 <= len(words) <= 3:
        raise ConfigError(f"{where}: has {len(words)} words", remedy="write: id host [target_class]")
    if not _ID.fullmatch(words[0]):
        raise ConfigError(
            f"{where}: {words[0]!r}: is no id",
            remedy="use up to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
        )
    if not is_host(words[1]):
        raise ConfigError(
            f"{where}: {words[1]!r}: is neither a name nor an address",
            remedy="write a host name, an IPv4 address or an IPv6 address without brackets",
        )
    try:
        target_class = TargetClass(words[2]) if len(words) > 2 else TargetClass.DOMESTIC
    except ValueError:
        raise ConfigError(
            f"{where}: {words[2]!r}: is no target class", remedy=f"use one of {', '.join(TargetClass)}"
        ) from None
    return Target(id=words[0], host=words[1], target_class=target_class)
