"""The collector's configuration file, ``format = "nhip-collector/1"``.

The list of probes is the authority on who a probe is: operator, province and technology of every record
are held against it, and the labels on ``/metrics`` come from here and from nowhere else.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from collector.store.api import StoreSettings
from nhip import config
from nhip.errors import ConfigError, UnknownNameError
from nhip.measurement import Direction, Environment, TargetClass, Technology
from nhip.wire import Identifier

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="from `nhip key`: SHA-256 of the key")]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Octets = Annotated[int, Meta(ge=1024)]
Number = Annotated[int, Meta(ge=1)]
BitsPerSecond = Annotated[float, Meta(gt=0, le=1e13)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Listen(_Table, frozen=True):
    """Where the collector answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8642
    unix_socket: str | None = None
    """Listened on as well; reaches a probe in another network namespace of the same host."""
    advertised: str | None = None
    """``host:port`` under which a Prometheus reaches this collector; host and port above by default."""
    public_reading: bool = False
    """Lets anyone who reaches this address read pages and metrics without a key."""
    read_key_sha256: Sha256 | None = None
    """Key for reading pages and metrics; unset, reading is open on the loopback address only."""


class Limits(_Table, frozen=True):
    """Bounds that keep one sender from taking the collector from the others."""

    connections: Number = 1_000
    connections_per_source: Number = 256
    header_seconds: Seconds = 10.0
    header_octets: Octets = 32 * 2**10
    """Of the head of a request, and of the trailer fields behind a chunked body."""
    body_seconds: Seconds = 30.0
    answer_seconds: Seconds = 60.0
    idle_seconds: Seconds = 60.0
    body_octets: Octets = 4 * 2**20
    """Of a request as it arrives."""
    unpacked_octets: Octets = 16 * 2**20
    """Of a request after decompression."""
    unpacked_ratio: Number = 100
    """Decompressed ÷ compressed; real batches reach about 10."""
    in_flight_octets: Octets = 128 * 2**20
    """Of all bodies being received together."""
    records_per_batch: Number = 10_000
    epochs_per_batch: Annotated[int, Meta(ge=1, le=64)] = 16
    """Fewer than the epochs remembered of each probe, so that a repeated batch is always recognised."""
    queue_batches: Number = 512
    queue_octets: Octets = 64 * 2**20
    queue_batches_per_probe: Number = 4
    commit_records: Number = 20_000
    """Records that share one commit at most."""
    retry_after_seconds: Annotated[float, Meta(ge=1)] = 10.0
    """A refused sender is told to wait 0.5 to 1.5 times this, at random, so that not all return at once."""
    minimum_free_octets: Annotated[int, Meta(ge=0)] = 64 * 2**20
    """Below so much free space on the disk nothing more is accepted."""
    record_age_seconds: Seconds = 7 * 86_400.0
    """A record that started longer ago goes to quarantine: its date is not believed."""
    record_ahead_seconds: Seconds = 300.0
    """So does one that starts further in the future."""
    series: Number = 50_000
    series_per_probe: Number = 200


class Status(_Table, frozen=True):
    """What the status page and the gauges show."""

    window_seconds: Seconds = 600.0
    default_interval_seconds: Seconds = 300.0
    """Of a test whose record does not state its own ``interval_seconds``."""
    expire_intervals: Annotated[float, Meta(ge=1)] = 3.0
    """A result is shown for so many intervals after it was made."""
    silent_seconds: Seconds = 180.0
    """A probe not heard for so long is called silent."""
    delay_kinds: tuple[Identifier, ...] = ("stamp", "icmp")
    """The access's delay and loss come from the first of these kinds that has results."""
    target_classes: tuple[TargetClass, ...] = (TargetClass.DOMESTIC, TargetClass.ON_NET)
    """Delay, loss and speed of an access are shown towards targets of these classes."""
    verdict_days: Annotated[float, Meta(gt=0, le=400)] = 92.0
    """Period the regulatory verdicts rest on."""
    forecast_days: Annotated[float, Meta(gt=0, le=400)] = 7.0
    """The limits of a forecast made longer ago are no longer on /metrics."""


class ProbeEntry(_Table, frozen=True):
    """One probe: who it is and which key proves it."""

    id: Identifier
    key_sha256: Sha256
    operator: Identifier
    province: Identifier
    technologies: Annotated[list[Technology], Meta(min_length=1)]
    """Of its access; the first one names the probe's own series."""
    environment: Environment = Environment.FIXED
    misplaced: Literal["refuse", "quarantine"] = "refuse"
    """What becomes of a batch none of whose records agrees with this table: it stays at the probe until one
    side is corrected, or its records go to quarantine and the probe goes on."""
    metrics_url: str | None = None
    """``http://host:port/path`` of the probe's own metrics, handed on by /api/sd."""
    declared_down_bits_per_second: BitsPerSecond | None = None
    declared_up_bits_per_second: BitsPerSecond | None = None
    """What the operator declares for this very line; otherwise see ``[[declared]]``."""


class Declared(_Table, frozen=True):
    """The speeds an operator declares for a technology (Vd and Vu of QCVN 34)."""

    operator: Identifier
    technology: Technology
    down_bits_per_second: BitsPerSecond | None = None
    up_bits_per_second: BitsPerSecond | None = None


class CollectorConfig(_Table, frozen=True):
    """The whole file."""

    format: Literal["nhip-collector/1"]
    data_dir: str
    """Directory of the journal, the archive and the forecasts; one collector each."""
    listen: Listen = Listen()
    limits: Limits = Limits()
    store: StoreSettings = StoreSettings()
    status: Status = Status()
    regulation: str | None = None
    """Regulation profile the verdicts follow: a path, or a name below configs/."""
    truth_file: str | None = None
    """What a lab knows of its accesses, to be shown beside what was measured."""
    forecast_key_sha256: Sha256 | None = None
    """Key that may publish forecasts; unset, nobody may."""
    probes: list[ProbeEntry] = msgspec.field(name="probe", default_factory=list)
    declared: list[Declared] = []

    def __post_init__(self) -> None:
        _refuse_repeated("probe.id", [probe.id for probe in self.probes])
        _refuse_repeated("probe.key_sha256", [probe.key_sha256 for probe in self.probes])
        _refuse_repeated("declared", [f"{entry.operator} {entry.technology}" for entry in self.declared])
        self._refuse_unknown_names()
        listen = self.listen
        if not (listen.public_reading or listen.read_key_sha256 or _is_loopback(listen.host)):
            raise ConfigError(
                f"listen.host: {listen.host!r}: is reachable from elsewhere and reading is not protected",
                remedy="set listen.read_key_sha256, or listen.public_reading = true when that is meant",
            )
        for probe in self.probes:
            if probe.metrics_url is not None:
                url = urlsplit(probe.metrics_url)
                if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc:
                    raise ConfigError(
                        f"probe.metrics_url: {probe.metrics_url!r}: is no address Prometheus can read",
                        remedy="write http://host:port/path",
                    )
        remembered_seconds = self.store.remember_ids_days * 86_400
        if remembered_seconds < self.limits.record_age_seconds + self.limits.record_ahead_seconds:
            raise ConfigError(
                f"store.remember_ids_days: {self.store.remember_ids_days}: is shorter than"
                f" limits.record_age_seconds, {self.limits.record_age_seconds:.0f}",
                remedy="remember a day longer than that, or a record sent twice is stored twice",
            )

    def _refuse_unknown_names(self) -> None:
        """The names in this file that mean something elsewhere: a store, a regulation, provinces."""
        from collector.kpi.profile import RegulationProfile
        from collector.store.registry import STORES
        from nhip.geography import provinces

        try:
            STORES.path(self.store.name)
        except UnknownNameError as error:
            raise ConfigError(f"store.name: {error.what}", remedy=error.remedy) from error
        path = profile_path(self)
        if path is not None:
            try:
                config.load(path, RegulationProfile, environment={})
            except ConfigError as error:
                raise ConfigError(
                    f"regulation: {self.regulation!r}: is no regulation profile: {error.what}",
                    remedy=error.remedy or "name a file of the format nhip-regulation/1",
                ) from error
        today = datetime.now(UTC).date()
        for probe in self.probes:
            try:
                provinces().on(probe.province, today)
            except UnknownNameError as error:
                raise ConfigError(f"probe.province: {probe.id}: {error.what}", remedy=error.remedy) from error


def declared_bits_per_second(
    settings: CollectorConfig, probe: ProbeEntry, technology: Technology, direction: Direction
) -> float | None:
    """The speed declared for a probe's access: its own line's first, then operator × technology."""
    down = direction is Direction.DOWN
    own = probe.declared_down_bits_per_second if down else probe.declared_up_bits_per_second
    if own is not None:
        return own
    for entry in settings.declared:
        if entry.operator == probe.operator and entry.technology is technology:
            return entry.down_bits_per_second if down else entry.up_bits_per_second
    return None


def profile_path(settings: CollectorConfig) -> Path | None:
    """Where the regulation profile lies; a relative name that is no file here is one of configs/."""
    if settings.regulation is None:
        return None
    path = Path(settings.regulation)
    return path if path.is_absolute() or path.exists() else config.shipped(settings.regulation)


def _refuse_repeated(key: str, values: list[str]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise ConfigError(f"{key}: {value!r}: appears {times} times", remedy="keep one of them")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
