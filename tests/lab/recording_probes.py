"""Probe types that only note when they ran, registered as another distribution would register its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import pytest

from nhip.errors import CannotMeasureError
from nhip.measurement import Method, Outcome, Sample, Singleton, StampSource, Target, TypeP
from probes.api import ProbeContext


@dataclass(frozen=True)
class Run:
    """One test: which kind, towards what, and from when to when."""

    kind: str
    target: str
    begun_ns: int
    ended_ns: int

    def overlaps(self, other: Run) -> bool:
        return self.begun_ns < other.ended_ns and other.begun_ns < self.ended_ns


RUNS: list[Run] = []


class RecordingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long it takes and how it ends."""

    duration_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    cannot: bool = False
    fault: bool = False


class Light:
    """Runs beside others."""

    kind: ClassVar = "light"
    method: ClassVar = Method("light", "1")
    Config: ClassVar = RecordingConfig
    exclusive: ClassVar = False
    has_port: ClassVar = True

    def __init__(self, config: RecordingConfig) -> None:
        self.config = config

    def measure(self, target: Target, context: ProbeContext) -> Sample:
        started = context.now()
        if self.config.cannot:
            raise CannotMeasureError("this host could not", remedy="do something")
        if self.config.fault:
            raise ZeroDivisionError("a fault of ours")
        context.cancelled.wait(self.config.duration_seconds)
        ended = context.now()
        RUNS.append(Run(self.kind, target.id, started.mono_ns, ended.mono_ns))
        return Sample(
            kind=self.kind,
            method=self.method,
            target=target,
            type_p=TypeP(protocol="none"),
            started=started,
            ended=ended,
            loss_threshold_seconds=1.0,
            singletons=(
                Singleton(
                    sequence=0,
                    outcome=Outcome.RECEIVED,
                    sent=started,
                    received=ended,
                    delay_ns=ended.mono_ns - started.mono_ns,
                    delay_source=StampSource.USER,
                ),
            ),
            timestamp_source=StampSource.USER,
        )


class Heavy(Light):
    """Runs alone."""

    kind: ClassVar = "heavy"
    exclusive: ClassVar = True


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``light`` and ``heavy`` known to the registry of probes through its entry-point group."""
    distribution = folder / "recording_probes-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: recording-probes\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        f"[nhip.probes]\nlight = {__name__}:Light\nheavy = {__name__}:Heavy\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    RUNS.clear()
