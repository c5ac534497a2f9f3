"""What a stamp test concludes is a record that the collector takes, whatever became of its packets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhip import statistics, wire
from nhip.errors import WireError
from nhip.measurement import Access, ClockState, DirectionalLoss, Outcome, Sample, Singleton, Technology
from probes.packets.stamp import ErrorEstimate
from probes.stamp.directions import directional_loss
from probes.stamp.findings import concluded
from probes.stamp.heard import Heard, OwnEnd, Reply
from tests.lab import samples
from tests.lab.samples import MS

ERROR = ErrorEstimate(synchronised=True, scale=12, multiplier=1)
FATES = (
    "received",
    "late",
    "corrupt",
    "lost_up",
    "lost_down",
    "doubled_up",
    "doubled_down",
    "one_copy_lost",
    "not_sent",
    "refused",
)
ACCESS = Access(operator="example", technology=Technology.FIXED, province="vn-hn")


def as_record(sample: Sample) -> wire.Record:
    """The record as the collector reads it."""
    record = wire.record(sample, probe_id="probe", access=ACCESS, wall_ns=samples.START.wall_ns)
    return wire.decode_record(wire.encode_record(record))


def stream(
    fates: list[str], *, numbering: str = "stateful", begins_anew_at: int = -1, told: str = "any"
) -> Sample:
    """The sample of a test whose packets had these fates; `begins_anew_at` is one of our numbers."""
    singletons: list[Singleton] = []
    heard = Heard(extended=True)
    count = 0
    for sequence, fate in enumerate(fates):
        if sequence == begins_anew_at:
            count = 0
        if fate in ("not_sent", "refused"):
            outcome = Outcome.NOT_SENT if fate == "not_sent" else Outcome.REFUSED
            singletons.append(samples.other(sequence, outcome))
            continue
        if fate == "lost_up":
            singletons.append(samples.other(sequence, Outcome.LOST))
            continue
        copies = 2 if fate in ("doubled_up", "one_copy_lost") else 1
        numbers = [sequence if numbering == "stateless" else count + copy for copy in range(copies)]
        count += copies
        whole = dataclasses.replace(samples.received(sequence, 20 * MS), own_error_ns=1_000)
        if fate == "lost_down":
            singletons.append(samples.other(sequence, Outcome.LOST))
            continue
        far_ns = samples.START.wall_ns + sequence * 1000 * MS + 10 * MS
        for number in numbers[:1] if fate == "one_copy_lost" else numbers * (1 + (fate == "doubled_down")):
            if fate == "corrupt":
                heard.damaged.append((sequence, number))
            else:
                heard.replies.append(Reply(sequence, number, far_ns, far_ns + 1_000, ERROR))
        if fate in ("late", "corrupt"):
            outcome = Outcome.LATE if fate == "late" else Outcome.CORRUPT
            whole = dataclasses.replace(
                whole, outcome=outcome, delay_ns=None, delay_source=None, own_error_ns=None
            )
        singletons.append(whole)
        if fate.startswith("doubled"):
            singletons.append(
                dataclasses.replace(
                    whole, outcome=Outcome.DUPLICATE, delay_ns=None, delay_source=None, own_error_ns=None
                )
            )
    own = OwnEnd(clock=ClockState(synchronised=True, maximum_error_ns=1_000_000), host=None, reflector=told)
    found = concluded(tuple(singletons), heard, own)
    return samples.sample(
        found.singletons,
        kind="stamp",
        statistics=found.statistics,
        facts=found.facts,
        directional_loss=found.directional_loss,
        notes=found.notes,
    )


@given(
    fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=40),
    numbering=st.sampled_from(["stateful", "stateless"]),
    begins_anew_at=st.integers(-1, 40),
    told=st.sampled_from(["any", "stateful", "stateless"]),
)
def test_every_test_s_record_is_taken(
    fates: list[str], numbering: str, begins_anew_at: int, told: str
) -> None:
    sample = stream(fates, numbering=numbering, begins_anew_at=begins_anew_at, told=told)
    record = as_record(sample)
    assert record.directional_loss == sample.directional_loss


@given(fates=st.lists(st.sampled_from(FATES[:7]), min_size=1, max_size=40))
def test_what_a_faithful_reflector_tells_is_the_truth(fates: list[str]) -> None:
    """Late and damaged answers among the others: they came back, so they are lost in no direction."""
    sample = stream(fates, told="stateful")
    if all(fate in ("lost_up", "lost_down", "corrupt") for fate in fates):
        assert sample.directional_loss is None
        return
    last = max(number for number, fate in enumerate(fates) if fate not in ("lost_up", "lost_down"))
    before = fates[: last + 1]
    assert sample.directional_loss == DirectionalLoss(
        sent=len(fates),
        lost_up=before.count("lost_up"),
        lost_down=before.count("lost_down"),
        undetermined=len(fates) - 1 - last,
    )


@pytest.mark.parametrize("fate", ["late", "corrupt"])
def test_an_answer_that_came_late_or_damaged_was_not_lost_on_the_way(fate: str) -> None:
    sample = stream(["received", fate, "received"], told="stateful")
    assert sample.directional_loss == DirectionalLoss(sent=3, lost_up=0, lost_down=0, undetermined=0)
    assert statistics.count(sample.singletons).lost == (fate == "late")
    as_record(sample)


@pytest.mark.parametrize("wrong", [{"lost_up": 3}, {"lost_down": 4}, {"undetermined": 1}, {"lost_up": 0}])
def test_a_record_whose_directions_lose_more_or_less_than_was_lost_is_refused(wrong: dict[str, Any]) -> None:
    """The twin: three were lost, one of them late; so the parts are two or three."""
    sample = stream(["received", "late", "lost_up", "lost_down", "received"], told="stateful")
    loss = sample.directional_loss
    assert loss == DirectionalLoss(sent=5, lost_up=1, lost_down=1, undetermined=0)
    as_record(sample)
    changed = dataclasses.replace(loss, **wrong)
    if 2 <= changed.lost_up + changed.lost_down + changed.undetermined <= 3:
        as_record(dataclasses.replace(sample, directional_loss=changed))
        return
    with pytest.raises(WireError, match="its parts are not what was lost"):
        as_record(dataclasses.replace(sample, directional_loss=changed))


def test_a_lower_number_of_a_later_packet_shows_that_the_reflector_began_anew() -> None:
    """No number comes twice here: 0, 1, 5 and, of the new count, 2."""
    fates = ["received", "received", "lost_down", "lost_down", "lost_down", "received", *["lost_down"] * 2]
    sample = stream([*fates, "received"], begins_anew_at=6, told="stateful")
    assert sample.directional_loss is None
    assert any("do not go together" in note for note in sample.notes)
    # The twin leaves the times out, and the blame falls on the way that lost nothing.
    timeless = [Reply(sequence, number, 1, 2, ERROR) for sequence, number in ((0, 0), (1, 1), (5, 5), (8, 2))]
    found, _why = directional_loss(sample.singletons, timeless)
    assert found is not None
    assert (found.lost_up, found.lost_down) == (3, 2)
