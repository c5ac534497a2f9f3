"""The exception tree: what is raised when Nhịp could not do what was asked.

A network that fails is a measurement and never an exception; see :class:`nhip.measurement.Outcome`.

::

    NhipError
    ├── ConfigError          a file, a key or a value is wrong; nothing was started
    ├── UnknownNameError     a registry has no such entry; lists the known ones
    ├── CannotMeasureError   this host could not measure at all; says what to do next
    ├── WireError            bytes that are not a record we understand
    ├── StoreError           the store refused or could not keep a record
    ├── ShipError            the collector could not be reached or did not acknowledge
    ├── PublishError         Grafana could not be reached or refused a dashboard
    ├── SeriesError          a time series that cannot be forecast, by name and reason
    └── LabError             the network in miniature could not be built or torn down
"""

from __future__ import annotations


class NhipError(Exception):
    """Any failure Nhịp reports to a person: `what` went wrong and the `remedy` that mends it."""

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class ConfigError(NhipError):
    """A wrong configuration; `what` reads ``file:key: value is ...``."""


class UnknownNameError(NhipError):
    """A name no registry entry answers to."""


class CannotMeasureError(NhipError):
    """This host could not measure: a missing privilege, interface or tool, never a failing network."""


class WireError(NhipError):
    """Bytes from the network or the spool that are not a record we understand."""


class StoreError(NhipError):
    """The store refused a record, is full, or holds something it cannot read."""


class ShipError(NhipError):
    """The collector was not reached, refused, or answered with something that is no acknowledgement."""

    def __init__(self, what: str, *, remedy: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class PublishError(NhipError):
    """Grafana was not reached, refused, or answered with something that is no Grafana's answer."""


class SeriesError(NhipError):
    """A time series that cannot be forecast: too short, wrong unit, no regular step."""


class LabError(NhipError):
    """The lab could not be built, measured or torn down."""
