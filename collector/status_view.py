"""The state as a person reads it: one row per access, series, verdict and link (:mod:`nhip.status`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collector.collector_config import CollectorConfig, ProbeEntry
from collector.kpi.tally import Tally
from collector.state import Observation, ProbeState, Series, Snapshot, is_silent
from collector.store.api import StoreCounts
from nhip import __version__, statistics
from nhip.clock import Clock
from nhip.measurement import Direction, Technology
from nhip.status import AccessRow, SeriesRow, StatusView, Truth, VerdictRow
from nhip.wire import LinkForecast


def status_view(
    config: CollectorConfig,
    clock: Clock,
    snapshot: Snapshot,
    tally: Tally | None,
    forecasts: Sequence[LinkForecast],
    truth: Mapping[str, Truth],
    counts: StoreCounts,
) -> StatusView:
    """Everything on the status page now; `snapshot` comes with observations."""
    return StatusView(
        made_wall_ns=clock.wall_ns(),
        window_seconds=config.status.window_seconds,
        software_version=__version__,
        simulated=config.truth_file is not None
        or any(forecast.provenance != "measured" for forecast in forecasts),
        accesses=access_rows(config, snapshot, truth),
        series=tuple(_series_row(series) for series in sorted(snapshot.series, key=_by_name)),
        verdicts=_verdict_rows(tally),
        profile_title_vi=tally.profile.title_vi if tally else "",
        profile_title_en=tally.profile.title_en if tally else "",
        links=tuple(forecasts),
        records_stored=counts.records,
        records_quarantined=counts.quarantined,
    )


def access_rows(
    config: CollectorConfig, snapshot: Snapshot, truth: Mapping[str, Truth]
) -> tuple[AccessRow, ...]:
    """A row for each probe and technology, also for those never heard, by operator and technology.

    Delay is the median of the tests' medians and ``delay_count`` the number of those tests; loss is lost over
    lost + received of all their packets; speed is the arithmetic mean over transfers.
    """
    rows = [
        _access_row(config, snapshot, probe, technology, truth.get(probe.entry.id))
        for probe in snapshot.probes
        for technology in probe.entry.technologies
    ]
    order = list(Technology)
    return tuple(
        sorted(rows, key=lambda row: (row.operator, order.index(row.technology), row.province, row.probe_id))
    )


def _access_row(
    config: CollectorConfig,
    snapshot: Snapshot,
    probe: ProbeState,
    technology: Technology,
    truth: Truth | None,
) -> AccessRow:
    oldest_mono_ns = snapshot.now_mono_ns - round(config.status.window_seconds * 1e9)
    shown = [
        observation
        for observation in probe.observations
        if observation.made_mono_ns >= oldest_mono_ns
        and observation.technology is technology
        and observation.target_class in config.status.target_classes
    ]
    packets = _of_first_kind(shown, config.status.delay_kinds)
    delays = [item.delay_seconds for item in packets if item.delay_seconds is not None]
    lost = sum(item.lost for item in packets)
    trials = lost + sum(item.received for item in packets)
    down, up = _rates(shown, Direction.DOWN), _rates(shown, Direction.UP)
    entry: ProbeEntry = probe.entry
    return AccessRow(
        operator=entry.operator,
        technology=technology,
        province=entry.province,
        probe_id=entry.id,
        last_seen_wall_ns=probe.last_seen_wall_ns,
        silent=is_silent(probe, snapshot, config.status),
        delay_seconds=statistics.quantile(delays, 0.5),
        delay_count=len(delays),
        loss_ratio=lost / trials if trials else None,
        loss_interval=statistics.wilson_interval(lost, trials),
        loss_count=trials,
        down_bits_per_second=statistics.mean(down),
        down_count=len(down),
        up_bits_per_second=statistics.mean(up),
        up_count=len(up),
        truth=truth,
    )


def _of_first_kind(observations: list[Observation], kinds: Sequence[str]) -> list[Observation]:
    """The observations of the first kind that has any: two kinds of packet are never mixed in one figure."""
    for kind in kinds:
        if found := [observation for observation in observations if observation.kind == kind]:
            return found
    return []


def _rates(observations: list[Observation], direction: Direction) -> list[float]:
    return [
        rate
        for observation in observations
        for of_direction, rates in observation.rates_bits_per_second
        if of_direction is direction
        for rate in rates
    ]


def _series_row(series: Series) -> SeriesRow:
    record = series.last
    delay = record.round_trip_delay_seconds
    return SeriesRow(
        probe_id=record.probe_id,
        kind=record.kind,
        target=record.target.id,
        outcome=record.outcome,
        started_wall_ns=record.started_wall_ns,
        delay_seconds=None if delay is None else delay.p50,
        loss_ratio=record.loss_ratio,
        timestamp_source=record.timestamp_source,
    )


def _by_name(series: Series) -> tuple[str, str, str]:
    return series.key.probe_id, series.key.kind, series.key.target_id


def _verdict_rows(tally: Tally | None) -> tuple[VerdictRow, ...]:
    return tally.rows() if tally else ()
