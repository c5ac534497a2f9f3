"""A /metrics page for Prometheus about the process itself: the agent's and the measurement server's own.

Names, labels and help come from the catalog, so that a panel or a rule can rely on them. Off unless a
``[metrics]`` table asks for it, and on loopback unless that table says otherwise: the page needs no key.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from nhip.catalog import CATALOG, MetricKind
from nhip.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector


class MetricsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the process tells Prometheus about itself."""

    listen: Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$(?!\n)")]
    """Address and port, such as ``127.0.0.1:9464`` or ``[::1]:9464``; port 0 takes a free one."""
    allow_network: bool = False
    """Listen on another address than loopback too; anybody who reaches it may read the page."""

    def __post_init__(self) -> None:
        try:
            host, _port = self.address
        except ValueError:
            raise ConfigError(
                f"metrics.listen: {self.listen!r}: is no address and port", remedy="write 127.0.0.1:9464"
            ) from None
        if not (self.allow_network or ipaddress.ip_address(host).is_loopback):
            raise ConfigError(
                f"metrics.listen: {self.listen!r}: can be reached over the network",
                remedy="listen on 127.0.0.1, or say allow_network = true",
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; ValueError when they are none."""
        parts = urlsplit(f"//{self.listen}")
        host, port = parts.hostname or "", parts.port
        if port is None:
            raise ValueError(self.listen)
        return str(ipaddress.ip_address(host)), port


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of one metric of the catalog; `None` is left out of the page."""

    name: str
    value: float | None
    labels: tuple[str, ...] = ()
    """Values in the catalog's order of the metric's labels."""


class MetricsPage:
    """Serves what `readings` gives, asked anew for every scrape, until closed."""

    def __init__(self, section: MetricsSection, readings: Callable[[], Iterable[Reading]]) -> None:
        self._section = section
        self._readings = readings
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port really bound, once started; 0 before."""
        return int(self._server.server_port) if self._server is not None else 0

    def start(self) -> None:
        """Listen; ConfigError when the address cannot be had."""
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_collector(self._readings))
        host, port = self._section.address
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics.listen: {self._section.listen!r}: {os.strerror(error.errno or 0)}",
                remedy="choose a free port and an address of this host",
            ) from error

    def close(self) -> None:
        """Stop listening; may be called more than once."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def families(readings: Iterable[Reading]) -> Iterator[Metric]:
    """The readings as metric families; AssertionError for a name or label the catalog does not know.

    Counters are given without the time of their creation, which the text format would show as a series.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    found: dict[str, Metric] = {}
    for reading in readings:
        metric = CATALOG.get(reading.name)
        if metric is None or len(metric.labels) != len(reading.labels):
            raise AssertionError(f"{reading.name}{reading.labels} is not in the catalog")
        if reading.value is None:
            continue
        if reading.name not in found:
            kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
            found[reading.name] = kind(metric.name, metric.help_en, labels=metric.labels)
        family: Any = found[reading.name]
        family.add_metric(reading.labels, reading.value)
    yield from found.values()


def _collector(readings: Callable[[], Iterable[Reading]]) -> Collector:
    from prometheus_client.registry import Collector as Base

    class OfReadings(Base):
        def collect(self) -> Iterator[Metric]:
            return families(readings())

    return OfReadings()
