"""Which records of a batch are taken in: pure decisions about bytes, identity, time and characters.

A record that is refused goes to quarantine with a reason and is reported by its position; it never holds
up the others of its batch. When not one record of a batch comes from where the collector's list says, list or
probe has a typing error, and the batch is better kept by its probe until that is corrected.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import msgspec

from collector.collector_config import Limits, ProbeEntry
from collector.store.api import Aside, Entry
from nhip import wire
from nhip.errors import WireError
from nhip.wire import Batch, Record, Rejection


class Reason(StrEnum):
    """Why a record is in quarantine; a closed list, for it is a label on /metrics."""

    MALFORMED = "malformed"
    """No record of a version understood here."""
    IDENTITY = "identity"
    """Says it comes from another probe, operator, province or access than the owner of the key."""
    TIME = "time"
    """Started too long ago or in the future: its date is not believed."""
    CHARACTERS = "characters"
    """A name holds characters that names here never have."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a batch comes to before anything is stored."""

    entries: list[Entry]
    aside: list[Aside]
    rejected: list[Rejection]
    misplaced: str = ""
    """What is wrong with the access of the first record, when it is wrong with all of them."""


def open_batch(body: bytes, at_most: int) -> Batch:
    """The batch in `body` with its records still raw; WireError when the outside is wrong."""
    try:
        batch = wire.decode_batch(body)
    except WireError as error:
        batch = _open_leniently(body, error)
    if batch.schema_version < wire.OLDEST_SCHEMA_VERSION or batch.schema_version > wire.SCHEMA_VERSION + 2:
        raise WireError(f"batch of schema_version {batch.schema_version} is not understood")
    if len(batch.records) > at_most:
        raise WireError(f"batch of {len(batch.records)} records", remedy=f"send at most {at_most} at once")
    return batch


def admit(batch: Batch, probe: ProbeEntry, limits: Limits, received_wall_ns: int) -> Admission:
    """Each record of `batch` judged by itself; `batch` is known to come from `probe`.

    WireError when its records are of more epochs than the store can be sure to remember.
    """
    entries: list[Entry] = []
    aside: list[Aside] = []
    rejected: list[Rejection] = []
    epochs: set[str] = set()
    wrong_access: list[str] = []
    for position, raw in enumerate(batch.records):
        try:
            record = wire.decode_record(raw)
        except WireError as error:
            refusal: tuple[Reason, str] | None = (Reason.MALFORMED, error.what)
        else:
            epochs.add(record.epoch)
            refusal = refusal_of(record, probe, limits, received_wall_ns)
            wrong_access.append(_wrong_access(record, probe))
            if refusal is None:
                entries.append(Entry(record, bytes(raw), received_wall_ns))
        if refusal is not None:
            reason, detail = refusal[0], _printable(refusal[1])
            aside.append(
                Aside(
                    probe_id=probe.id,
                    reason=reason,
                    detail=detail,
                    body=bytes(raw),
                    received_wall_ns=received_wall_ns,
                )
            )
            rejected.append(Rejection(position=position, reason=f"{reason}: {detail}"))
    if len(epochs) > limits.epochs_per_batch:
        raise WireError(
            f"batch of {len(epochs)} epochs",
            remedy=f"send at most {limits.epochs_per_batch} at once: lower collector.batch_records",
        )
    misplaced = _printable(wrong_access[0]) if wrong_access and all(wrong_access) else ""
    return Admission(entries, aside, rejected, misplaced)


def refusal_of(
    record: Record, probe: ProbeEntry, limits: Limits, received_wall_ns: int
) -> tuple[Reason, str] | None:
    """Why `record` is not taken in, or None."""
    wrong = f"probe_id {record.probe_id!r}" if record.probe_id != probe.id else _wrong_access(record, probe)
    if wrong:
        return Reason.IDENTITY, f"{wrong} is not what the collector's list says of {probe.id}"
    age_seconds = (received_wall_ns - record.started_wall_ns) / 1e9
    if age_seconds > limits.record_age_seconds:
        return Reason.TIME, f"started {age_seconds:.0f} s before it came"
    if -age_seconds > limits.record_ahead_seconds:
        return Reason.TIME, f"starts {-age_seconds:.0f} s after it came"
    for name, text in (
        ("target.id", record.target.id),
        ("method.name", record.method.name),
        ("method.version", record.method.version),
        ("software_version", record.software_version),
    ):
        if not is_name(text):
            return Reason.CHARACTERS, f"{name} is no name"
    return None


def _wrong_access(record: Record, probe: ProbeEntry) -> str:
    """The first thing `record` says of its access that `probe` has not; empty when all is right."""
    access = record.access
    if access.operator != probe.operator:
        return f"operator {access.operator!r}"
    if access.province != probe.province:
        return f"province {access.province!r}"
    if access.technology not in probe.technologies:
        return f"technology {access.technology.value!r}"
    if access.environment is not probe.environment:
        return f"environment {access.environment.value!r}"
    return ""


# Identifiers and version numbers: nothing a page, a shell, a spreadsheet or a label could stumble over.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,99}")


@lru_cache(maxsize=4096)  # the same few names come with every record
def is_name(text: str) -> bool:
    """Whether `text` may stand on a page or in a label as it is."""
    return _NAME.fullmatch(text) is not None


def _open_leniently(body: bytes, error: WireError) -> Batch:
    """The batch again, by a parser that also reads what JSON has no word for.

    One lone surrogate or NaN inside one record makes the strict decoder refuse the whole body. Here that
    record is cut out, still with its fault, so that the strict decoder refuses it alone.
    """
    try:
        outside = json.loads(body)
        records: list[object] = outside.pop("records")
        if not isinstance(records, list):
            raise error
        batch = msgspec.convert({**outside, "records": []}, Batch)
        raw = [msgspec.Raw(json.dumps(item).encode()) for item in records]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, msgspec.ValidationError):
        raise error from None
    return msgspec.structs.replace(batch, records=raw)


def _printable(text: str) -> str:
    """`text` fit for a log line, a page and a database: no control characters, no lone surrogates."""
    ascii_text = text.encode("ascii", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in ascii_text)[:200]
