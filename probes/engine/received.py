"""Columns that came over the pipe, as arrays again."""

from __future__ import annotations

import numpy as np

from nhip.measurement import ClockState
from probes.engine.book import Windows
from probes.engine.frames import WindowColumns
from probes.engine.group import Group
from probes.engine.records import WindowContext, address_text


def context_and_windows(
    columns: WindowColumns, group: Group, clock: ClockState
) -> tuple[WindowContext, Windows]:
    """What :func:`probes.engine.records.records` asks for."""
    positions = np.frombuffer(columns.positions, np.int32).tolist()
    known = np.frombuffer(columns.known, np.bool_).tolist()
    octets = 4 if columns.ip_version == 4 else 16
    places = range(0, len(columns.addresses), octets)
    texts = (address_text(columns.addresses[place : place + octets]) for place in places)
    shape = (len(positions), group.window_rounds)
    context = WindowContext(
        group=group,
        ip_version=columns.ip_version,
        targets=[group.targets[position] for position in positions],
        addresses=[text if is_known else None for text, is_known in zip(texts, known, strict=True)],
        offset_ns=columns.offset_ns,
        clock=clock,
    )
    windows = Windows(
        targets=np.frombuffer(columns.positions, np.int32).astype(np.int64),
        started_ns=np.frombuffer(columns.started_ns, np.int64),
        ended_ns=np.frombuffer(columns.ended_ns, np.int64),
        status=np.frombuffer(columns.status, np.uint8).reshape(shape),
        delays_ns=np.frombuffer(columns.delays_ns, np.uint32).reshape(shape),
        lags_us=np.frombuffer(columns.lags_us, np.uint16).reshape(shape),
        duplicates=np.frombuffer(columns.duplicates, np.int64),
        missed=np.frombuffer(columns.missed, np.int64),
    )
    return context, windows
