"""In which direction packets were lost or overtaken, as a reflector that numbers its answers can tell.

A stateful reflector numbers its answers from zero. With S the highest of our numbers answered and R the
highest of its numbers seen, of our S + 1 packets it numbered R + 1: the rest was lost on the way up, and the
numbers up to R that never came were lost on the way down. Of what we sent after S nobody can say. A damaged
answer came back all the same, and so did a late one: neither was lost in a direction.

All this holds while the reflector counts on. One that forgot the session counts from zero again: a number
comes twice, or a lower one belongs to a packet it received later, which T2 shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nhip.measurement import DirectionalLoss, Outcome, Singleton, Statistic
from probes.packets.stamp_tlv import Kind
from probes.stamp.heard import Heard, Reply

# Packets that arrive at once may be stamped by two processors and read in the other order.
_STAMPING_NOISE_NS = 1_000_000

_ONE_NUMBER_TWICE = "the reflector gave one number to two packets: loss has no direction"
_COUNTED = frozenset({Outcome.RECEIVED, Outcome.LATE, Outcome.CORRUPT, Outcome.LOST})


def numbering(heard: Heard, told: str) -> tuple[str, str]:
    """Whether the reflector numbers its answers itself: stateful, stateless or unknown, and any doubt.

    `told` is what the settings say: any, stateful or stateless.
    """
    replies = heard.replies
    differs = any(reply.number != reply.sequence for reply in replies)
    if told != "any":
        if told == "stateless" and differs:
            return "stateful", "the reflector numbers its answers itself, which the settings deny"
        return told, ""
    if differs or heard.follow_ups:
        return "stateful", ""
    asked = Kind.FOLLOW_UP in heard.last
    return ("stateless", "") if asked and len(replies) > 1 else ("unknown", "")


def directional_loss(
    singletons: Sequence[Singleton], replies: Sequence[Reply], damaged: Sequence[tuple[int, int]] = ()
) -> tuple[DirectionalLoss | None, str]:
    """Where packets were lost, by a reflector that numbers its answers; with `None`, why nobody can say.

    `damaged` are our number and the reflector's of answers that came back changed. The parts add up to the
    packets whose answer never came, late ones not among them.
    """
    counted = {singleton.sequence for singleton in singletons if singleton.outcome in _COUNTED}
    if not counted or not replies:
        return None, ""
    doubt = counted_anew(replies)
    if doubt:
        return None, doubt
    numbers = {reply.number: reply.sequence for reply in replies}
    for sequence, number in damaged:
        if numbers.setdefault(number, sequence) != sequence:
            return None, _ONE_NUMBER_TWICE
    answered = set(numbers.values())
    highest, highest_number = max(answered), max(numbers)
    reached = sum(sequence <= highest for sequence in counted)
    # A request that the network doubled got two numbers.
    doubled = len(numbers) - len(answered)
    lost_down = highest_number + 1 - len(numbers)
    lost_up = reached - (highest_number + 1 - doubled)
    if lost_up < 0:
        return None, "the reflector numbered more packets than were sent: loss has no direction"
    missing = sum(singleton.outcome is Outcome.LOST for singleton in singletons)
    if lost_up + lost_down + len(counted) - reached != missing:
        return None, "the reflector's numbers do not add up: loss has no direction"
    return (
        DirectionalLoss(
            sent=len(counted), lost_up=lost_up, lost_down=lost_down, undetermined=len(counted) - reached
        ),
        "",
    )


def counted_anew(replies: Sequence[Reply]) -> str:
    """Why the reflector's numbers are no single count of its answers; empty when they are."""
    numbers: dict[int, int] = {}
    for reply in replies:
        if numbers.setdefault(reply.number, reply.sequence) != reply.sequence:
            return _ONE_NUMBER_TWICE
    newest_ns: int | None = None
    for reply in sorted(replies, key=lambda reply: reply.number):
        if newest_ns is not None and reply.received_wall_ns < newest_ns - _STAMPING_NOISE_NS:
            return "the reflector's numbers and times do not go together: loss has no direction"
        newest_ns = reply.received_wall_ns if newest_ns is None else max(newest_ns, reply.received_wall_ns)
    return ""


def reordered(replies: Sequence[Reply]) -> Iterator[Statistic]:
    """How many packets were overtaken on the way up and on the way down."""
    yield _reordered("up", [reply.sequence for reply in sorted(replies, key=lambda reply: reply.number)])
    yield _reordered("down", [reply.number for reply in replies])


def _reordered(direction: str, numbers: Sequence[int]) -> Statistic:
    behind, expected = 0, -1
    for number in numbers:
        behind += number < expected
        expected = max(expected, number)
    return Statistic(
        name="directional_reordered_ratio",
        value=behind / len(numbers),
        unit="ratio",
        count=len(numbers),
        definition="packets of answered requests that arrived after one sent later, of all of them"
        " (RFC 4737 section 4.1.3), in one direction",
        of=direction,
    )
