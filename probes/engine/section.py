"""The tables of an agent's file that are about the engine. Without numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nhip.errors import ConfigError
from nhip.measurement import Target, TargetClass
from nhip.wire import Identifier
from probes.engine.group import Group, TargetList, read_targets
from probes.engine.sizes import LEAST_DATA_OCTETS, LONGEST_THRESHOLD_SECONDS
from probes.names import is_host

_MOST_WINDOW_ROUNDS = 100_000


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a misspelt key in it is refused."""


class GroupTargetSection(_Table, frozen=True, kw_only=True):
    """One target of a group."""

    id: Identifier
    host: str
    target_class: TargetClass = TargetClass.DOMESTIC


class IcmpEngineSection(_Table, frozen=True, kw_only=True):
    """The process that probes all groups."""

    maximum_probes_per_second: Annotated[float, Meta(gt=0, le=1e7)] | None = None
    """More is refused at start; without it the agent measures what this host can do."""


class IcmpGroupSection(_Table, frozen=True, kw_only=True):
    """Targets probed with ICMP echo without a pause, every window of each becoming a record of kind icmp."""

    id: Identifier
    targets: list[GroupTargetSection] = []
    targets_file: Path | None = None
    """One target a line: ``id host [target_class]``; stands in place of ``targets``."""
    interval_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 1.0
    arrival: Literal["poisson", "fixed"] = "poisson"
    window_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    """How long the probes of one record go on, on average: there are always equally many."""
    size_octets: Annotated[int, Meta(ge=LEAST_DATA_OCTETS, le=65_000)] = 56
    """Of data behind the ICMP header."""
    dscp: Annotated[int, Meta(ge=0, le=63)] = 0
    dont_fragment: bool = False
    loss_threshold_seconds: Annotated[float, Meta(gt=0, le=LONGEST_THRESHOLD_SECONDS)] = 2.0

    def group(self, where: str) -> Group:
        """The group with its targets read; ConfigError about a key of `where`."""
        found = Group(
            id=self.id,
            targets=self._targets(where),
            interval_seconds=self.interval_seconds,
            poisson=self.arrival == "poisson",
            window_seconds=self.window_seconds,
            size_octets=self.size_octets,
            dscp=self.dscp,
            dont_fragment=self.dont_fragment,
            loss_threshold_seconds=self.loss_threshold_seconds,
        )
        if found.window_rounds > _MOST_WINDOW_ROUNDS:
            raise ConfigError(
                f"{where}.window_seconds: {self.window_seconds:g}: is {found.window_rounds} probes a record",
                remedy=f"shorten it to at most {_MOST_WINDOW_ROUNDS} intervals",
            )
        return found

    def _targets(self, where: str) -> TargetList:
        if (self.targets_file is None) == (not self.targets):
            raise ConfigError(
                f"{where}.targets: give either these or targets_file",
                remedy="write targets = [{ id = ..., host = ... }] or name a file",
            )
        if self.targets_file is not None:
            return read_targets(self.targets_file)
        for position, target in enumerate(self.targets):
            if not is_host(target.host):
                raise ConfigError(
                    f"{where}.targets[{position}].host: {target.host!r}: is neither a name nor an address",
                    remedy="write a host name, an IPv4 address or an IPv6 address without brackets",
                )
        return TargetList(
            Target(id=target.id, host=target.host, target_class=target.target_class)
            for target in self.targets
        )


class SweepSettings(_Table, frozen=True, kw_only=True):
    """How ``nhip sweep`` probes its targets."""

    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    interval_seconds: Annotated[float, Meta(ge=0.01, le=3600)]
    loss_threshold_seconds: Annotated[float, Meta(gt=0, le=LONGEST_THRESHOLD_SECONDS)]
    size_octets: Annotated[int, Meta(ge=LEAST_DATA_OCTETS, le=65_000)]
    dscp: Annotated[int, Meta(ge=0, le=63)]
    dont_fragment: bool
    poisson: bool
    maximum_probes_per_second: Annotated[float, Meta(gt=0, le=1e7)] | None = None


def read_groups(sections: Sequence[IcmpGroupSection], engine: IcmpEngineSection) -> list[Group]:
    """All groups of a file, checked against each other and against the ceiling the file sets."""
    groups = [section.group(f"icmp_group[{position}]") for position, section in enumerate(sections)]
    if len({group.id for group in groups}) < len(groups):
        raise ConfigError("icmp_group: two groups share an id", remedy="give each group its own id")
    seen: dict[str, str] = {}
    for group in groups:
        for target in group.targets:
            if target.id in seen:
                raise ConfigError(
                    f"icmp_group: target {target.id!r}: stands in {seen[target.id]!r} and in {group.id!r}",
                    remedy="give each target its own id",
                )
            seen[target.id] = group.id
    wanted = sum(group.probes_per_second for group in groups)
    most = engine.maximum_probes_per_second
    if most is not None and wanted > most:
        raise ConfigError(
            f"icmp_engine.maximum_probes_per_second: {most:g}: and the groups ask for {wanted:,.0f}",
            remedy="use longer intervals or fewer targets",
        )
    return groups
