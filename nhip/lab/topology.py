"""Which operators a lab has, what their access links do to packets, and the default lab.

The figures of :func:`default_topology` are illustrations chosen to lie well apart, so that a wrong
measurement shows; they describe no real operator.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from nhip.errors import LabError
from nhip.lab.effects import Effects

Technology = Literal["fixed", "3g", "4g", "5g"]


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One access host of an operator and the link that joins it to the operator's router."""

    technology: Technology
    down: Effects = Effects()
    """Router to host: what a download meets."""
    up: Effects = Effects()
    """Host to router: what an upload meets."""


class Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operator: its id, which names its router, and its access hosts."""

    id: str
    access: tuple[Access, ...]


class International(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The link between the national exchange and the site abroad."""

    down: Effects = Effects()
    """From abroad into the country."""
    up: Effects = Effects()
    """Out of the country."""


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lab: its operators, its link abroad, and the seed of everything random in it."""

    operators: tuple[Operator, ...]
    international: International = International()
    seed: int = 1


def check_topology(topology: Topology) -> None:
    """Refuse, with LabError, what cannot be built: no operator, a bad or repeated id, a repeated access."""
    if not 1 <= len(topology.operators) <= 20:
        raise LabError(
            f"operators: there are {len(topology.operators)}", remedy="a lab holds between 1 and 20 operators"
        )
    ids = [operator.id for operator in topology.operators]
    for operator in topology.operators:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,15}", operator.id) or operator.id in _RESERVED:
            raise LabError(
                f"operators: {operator.id!r} cannot be an operator's id",
                remedy=f"use up to 16 of a-z, 0-9 and '-', beginning with a letter, and none of {_RESERVED}",
            )
        if ids.count(operator.id) > 1:
            raise LabError(
                f"operators: {operator.id!r} is there twice", remedy="give each operator its own id"
            )
        technologies = [access.technology for access in operator.access]
        if not technologies or len(set(technologies)) < len(technologies):
            raise LabError(
                f"operators: {operator.id!r} has the access hosts {technologies}",
                remedy="give it at least one, and each technology once",
            )


def load_topology(path: Path) -> Topology:
    """The topology of a TOML file; LabError names the file, the key and the mistake.

    A relative ``trace`` is looked for beside the file.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(
            f"{path}: cannot be read ({error})", remedy="give the path of a topology file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path}: is no TOML ({error})", remedy="mend the file at that place") from error
    try:
        topology = msgspec.convert(data, Topology)
    except msgspec.ValidationError as error:
        raise LabError(
            f"{path}: {error}", remedy="see the fields of nhip.lab.topology and nhip.lab.effects"
        ) from error
    check_topology(topology)
    return _with_traces_beside(topology, path.parent.absolute())


def default_topology(*, trace_4g: Path | None = None) -> Topology:
    """Three operators, alpha, beta and gamma, each with a fixed, a 4G and a 3G host.

    With `trace_4g` the 4G download of gamma follows that trace of delivery opportunities.
    """
    gamma_4g_down = Effects(
        delay_seconds=0.026,
        jitter_distribution="pareto",
        jitter_seconds=0.003,
        burst_start_ratio=0.0005,
        burst_end_ratio=0.25,
        rate_bits_per_second=None if trace_4g else 20e6,
        trace=str(trace_4g.absolute()) if trace_4g else None,
        queue_bytes=250_000,
    )
    return Topology(
        operators=(
            Operator(
                id="alpha",
                access=(
                    _access("fixed", 0.004, down=100e6, up=60e6),
                    _access("4g", 0.018, down=40e6, up=15e6, jitter=("normal", 0.002)),
                    _access("3g", 0.040, down=6e6, up=2e6, jitter=("normal", 0.006), loss=0.005),
                ),
            ),
            Operator(
                id="beta",
                access=(
                    _access("fixed", 0.0055, down=80e6, up=50e6, jitter=("uniform", 0.0004)),
                    _access("4g", 0.021, down=30e6, up=12e6, jitter=("normal", 0.003), loss=0.002),
                    _access("3g", 0.046, down=4e6, up=1.5e6, jitter=("normal", 0.008), loss=0.010),
                ),
            ),
            Operator(
                id="gamma",
                access=(
                    _access("fixed", 0.007, down=60e6, up=40e6, jitter=("uniform", 0.0008)),
                    Access(
                        technology="4g",
                        down=gamma_4g_down,
                        up=_effects(0.026, 8e6, ("pareto", 0.004), 0.002),
                    ),
                    Access(
                        technology="3g",
                        down=_in_bursts(_effects(0.055, 3e6, ("pareto", 0.010), 0.005)),
                        up=_in_bursts(_effects(0.055, 1e6, ("pareto", 0.010), 0.005)),
                    ),
                ),
            ),
        ),
        international=International(
            down=_effects(0.034, 200e6, ("uniform", 0.0005), 0.001),
            up=_effects(0.034, 200e6, ("uniform", 0.0005), 0.001),
        ),
    )


_RESERVED = ("server", "exchange", "intl")


def _access(
    technology: Technology,
    delay_seconds: float,
    *,
    down: float,
    up: float,
    jitter: tuple[Literal["uniform", "normal", "pareto"], float] | None = None,
    loss: float = 0.0,
) -> Access:
    return Access(
        technology=technology,
        down=_effects(delay_seconds, down, jitter, loss),
        up=_effects(delay_seconds, up, jitter, loss),
    )


def _effects(
    delay_seconds: float,
    rate_bits_per_second: float,
    jitter: tuple[Literal["uniform", "normal", "pareto"], float] | None,
    loss_ratio: float,
) -> Effects:
    distribution, jitter_seconds = jitter or ("none", 0.0)
    # A queue of 200 ms at full rate, and never below 48 packets: about what such links are seen to hold.
    queue_bytes = max(72_000, round(rate_bits_per_second * 0.2 / 8))
    return Effects(
        delay_seconds=delay_seconds,
        jitter_distribution=distribution,
        jitter_seconds=jitter_seconds,
        loss_ratio=loss_ratio,
        rate_bits_per_second=rate_bits_per_second,
        queue_bytes=queue_bytes,
    )


def _in_bursts(effects: Effects) -> Effects:
    return msgspec.structs.replace(effects, burst_start_ratio=0.004, burst_end_ratio=0.3)


def _with_traces_beside(topology: Topology, folder: Path) -> Topology:
    def placed(effects: Effects) -> Effects:
        if effects.trace is None:
            return effects
        return msgspec.structs.replace(effects, trace=str(folder / effects.trace))

    def both(link: Access | International) -> Access | International:
        return msgspec.structs.replace(link, down=placed(link.down), up=placed(link.up))

    operators = tuple(
        msgspec.structs.replace(operator, access=tuple(both(access) for access in operator.access))
        for operator in topology.operators
    )
    return msgspec.structs.replace(topology, operators=operators, international=both(topology.international))
