"""The configuration of a probe agent (``nhip probe --config FILE``)."""

from __future__ import annotations

import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from nhip.config import convert
from nhip.errors import ConfigError, NhipError, UnknownNameError
from nhip.extras import absent
from nhip.geography import provinces
from nhip.measurement import Environment, TargetClass, Technology
from nhip.secret import refuse_clear_text
from nhip.statistics import OWN_ERROR_SHARE
from nhip.wire import Identifier
from probes.engine.group import Group
from probes.engine.section import IcmpEngineSection, IcmpGroupSection, read_groups
from probes.line.config import LineSection
from probes.metrics import MetricsSection
from probes.names import is_host
from probes.registry import PROBES

_MODULES_OF_HTTP = {"http2": ("h2",), "auto": ("h2",), "http3": ("h2", "aioquic")}
# A collector unpacks at most 16 MiB unless it was told otherwise; the batch's own keys need a little of it.
_LARGEST_BATCH_OCTETS = 16 * 1024 * 1024 - 65_536


class Arrival(StrEnum):
    """``poisson``: exponential gaps between tests. ``fixed``: equal gaps from a random phase."""

    POISSON = "poisson"
    FIXED = "fixed"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a misspelt key in it is refused."""


class AccessSection(Section, frozen=True, kw_only=True):
    """The line this probe measures; the collector holds it against its own list."""

    operator: Identifier
    technology: Technology
    province: Annotated[
        str, Meta(pattern=r"^[0-9]{2}$(?!\n)", description="code from geography/provinces.toml")
    ]
    environment: Environment = Environment.FIXED


class CollectorSection(Section, frozen=True, kw_only=True):
    """Where records go."""

    url: Annotated[str, Meta(pattern=r"^(https?://[^/]+|unix:///.+)$")]
    """``https://HOST[:PORT]``, ``http://`` for a host on the same machine, or ``unix:///PATH``."""
    key: Annotated[str, Meta(extra={"environment": "NHIP_PROBE_KEY"})] | None = None
    key_file: Path | None = None
    """A file holding the key, readable by this user only."""
    ca_file: Path | None = None
    interval_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """How often what is spooled is delivered, and how often the probe reports itself alive."""
    batch_records: Annotated[int, Meta(ge=1, le=10_000)] = 500
    batch_octets: Annotated[int, Meta(ge=65_536, le=_LARGEST_BATCH_OCTETS)] = 2 * 1024 * 1024
    """Before compression, and below what a collector takes; one larger record still goes, alone."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 20.0

    def __post_init__(self) -> None:
        refuse_clear_text(self.url, "collector.url")


class SpoolSection(Section, frozen=True, kw_only=True):
    """Where records wait until the collector has them."""

    path: Path
    maximum_octets: Annotated[int, Meta(ge=65_536)] = 256 * 1024 * 1024
    """Of packed records, about 2 600 to the MiB: more than four days of the largest at one a second."""


class NetworkSection(LineSection, frozen=True, kw_only=True):
    """Which way packets of every task leave that has no ``network`` table of its own."""

    exclusive_lock: Path | None = None
    """A file that agents sharing one line lock for their heavy tests."""


class TargetSection(Section, frozen=True, kw_only=True):
    """Something to measure towards."""

    id: Identifier
    host: str
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    target_class: TargetClass = TargetClass.DOMESTIC


class TaskSection(Section, frozen=True, kw_only=True):
    """One test, repeated."""

    kind: str
    target: Identifier
    interval_seconds: Annotated[float, Meta(ge=1, le=86_400)]
    arrival: Arrival = Arrival.POISSON
    start_at_once: bool = False
    """Run the first test at start instead of at a random phase."""
    keep_singletons: bool = False
    network: LineSection | None = None
    """The line of this task; it stands in place of the file's ``network``, of which nothing is kept."""
    settings: dict[str, Any] = {}
    """The kind's own knobs; see the manual page of the kind."""


class AgentConfig(Section, frozen=True, kw_only=True):
    """A probe: who it is, what it measures, and where the records go."""

    format: Literal["nhip-probe/1"]
    probe_id: Identifier
    access: AccessSection
    collector: CollectorSection
    spool: SpoolSection
    network: NetworkSection = NetworkSection()
    metrics: MetricsSection | None = None
    """A page about the agent itself; none without this table."""
    own_error_share: Annotated[float, Meta(gt=0, le=1)] = OWN_ERROR_SHARE
    """A delay that this host may have falsified by more than this share is flagged as doubtful."""
    target: Annotated[list[TargetSection], Meta(min_length=1)] = []
    task: Annotated[list[TaskSection], Meta(min_length=1)] = []
    icmp_group: list[IcmpGroupSection] = []
    """Many targets probed without a pause; needs ``pip install 'nhip[engine]'``."""
    icmp_engine: IcmpEngineSection = IcmpEngineSection()

    def __post_init__(self) -> None:
        if not self.task and not self.icmp_group:
            raise ConfigError("task: is missing", remedy="add a [[task]] or an [[icmp_group]]")
        if self.task and not self.target:
            raise ConfigError("target: is missing", remedy="add a [[target]]")
        known = {target.id: target for target in self.target}
        if len(known) < len(self.target):
            raise ConfigError("target: two targets share an id", remedy="give each target its own id")
        try:
            provinces().on(self.access.province, datetime.date.today())
        except UnknownNameError as error:
            raise ConfigError(
                f"access.province: {self.access.province!r}: is no province code today", remedy=error.remedy
            ) from error
        for position, target in enumerate(self.target):
            if not is_host(target.host):
                raise ConfigError(
                    f"target[{position}].host: {target.host!r}: is neither a name nor an address",
                    remedy="write a host name, an IPv4 address or an IPv6 address without brackets",
                )
        self.network.check("network.")
        for position, task in enumerate(self.task):
            where = f"task[{position}]"
            if task.network is not None:
                task.network.check(f"{where}.network.")
            if task.target not in known:
                raise ConfigError(
                    f"{where}.target: {task.target!r} is no target of this file",
                    remedy=f"name one of {', '.join(sorted(known))}",
                )
            try:
                PROBES.path(task.kind)
            except UnknownNameError as error:
                raise ConfigError(f"{where}.kind: {error.what}", remedy=error.remedy) from error
            settings(task, where)
            port = known[task.target].port
            if port is not None and not PROBES.load(task.kind).has_port:
                raise ConfigError(
                    f"{where}.target: {task.target!r}: has port {port}, and {task.kind} knows no ports",
                    remedy="name a target without a port",
                )
        in_tasks = {task.target for task in self.task if task.kind == "icmp"}
        for group in self.groups():
            if both := next((target.id for target in group.targets if target.id in in_tasks), None):
                raise ConfigError(
                    f"icmp_group: target {both!r}: has a task of kind icmp too, and one series would be two",
                    remedy="remove the task, or give the target of the group another id",
                )

    def lacks(self) -> list[NhipError]:
        """What of this file the host at hand cannot carry out, since a module of an extra is not installed.

        A kind whose settings alone need a module is refused with them; these are the modules that are
        imported only once a test begins.
        """
        needed = [("icmp_group", "numpy")] if self.icmp_group else []
        needed += [
            (f"task[{position}].settings.http_version", module)
            for position, task in enumerate(self.task)
            if task.kind == "http"
            for module in _MODULES_OF_HTTP.get(task.settings.get("http_version", ""), ())
        ]
        return [
            ConfigError(f"{where}: {lack.what}", remedy=lack.remedy)
            for where, module in needed
            if (lack := absent(module)) is not None
        ]

    def groups(self) -> list[Group]:
        """The groups of ICMP targets with their targets read; ConfigError about a key or a line."""
        return read_groups(self.icmp_group, self.icmp_engine)


def settings(task: TaskSection, where: str) -> Any:
    """The checked settings of a task, as its kind's own Config."""
    into = PROBES.load(task.kind).Config
    try:
        return convert(task.settings, into, "", environment={})
    except ConfigError as error:
        raise ConfigError(f"{where}.settings.{error.what.lstrip(':')}", remedy=error.remedy) from error
