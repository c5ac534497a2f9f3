"""The traffic history and forecasts of the lab's links.

No lab has a year of history, so it is simulated from a documented model (``forecasting/simulate.py``) and
says so wherever it is shown; with a file of real traffic that is forecast instead.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nhip.lab.plan import Link

HISTORY_DAYS = 400
HORIZON = "180d"
LEAD_TIME_DAYS = 90
SEED = 2020
# Where the busiest and the idlest simulated link stand today: mean use of the capacity.
_LOWEST_USE, _HIGHEST_USE = 0.58, 0.80
_LOWEST_GROWTH, _HIGHEST_GROWTH = 0.15, 0.60


def simulated_forecasts(links: Sequence[Link], model: str, now: datetime.datetime) -> list[dict[str, Any]]:
    """A forecast of each link's download direction, from a simulated history that ends yesterday.

    A lab link's rate stands for the capacity of the aggregation link behind such accesses, a thousand times
    as large; use and growth differ from link to link but are the same in every run.
    """
    from forecasting.capacity_rules import read_capacity_rules, rules_for
    from forecasting.command import Question, answer, parse_horizon
    from forecasting.registry import MODELS
    from forecasting.simulate import SimulatedLink, simulate, start_before

    horizon_seconds, by_day = parse_horizon(HORIZON)
    published = []
    for position, link in enumerate(links):
        capacity = 1_000 * (link.down.rate_bits_per_second or 1e9)
        share = position / max(len(links) - 1, 1)
        use = _LOWEST_USE + share * (_HIGHEST_USE - _LOWEST_USE)
        growth = _HIGHEST_GROWTH - share * (_HIGHEST_GROWTH - _LOWEST_GROWTH)
        years = HISTORY_DAYS / 365.25
        frame = simulate(
            (
                SimulatedLink(
                    series_id=link.id,
                    base_bits_per_second=capacity * use / (1 + growth) ** years,
                    growth_per_year=growth,
                ),
            ),
            start=start_before(now, HISTORY_DAYS),
            days=HISTORY_DAYS,
            seed=SEED,
        )
        question = Question(
            horizon_seconds=horizon_seconds,
            by_day=by_day,
            capacity_bits_per_second=capacity,
            levels=(0.8, 0.95),
            rules=rules_for(
                read_capacity_rules(),
                day=now.date(),
                link_class="international" if link.operator is None else "domestic",
            ),
            lead_time_days=LEAD_TIME_DAYS,
            daily_statistic="daily_peak",
        )
        result = answer(frame, question, MODELS.load(model)(), round(now.timestamp() * 1e9))
        published += [found.as_dict() for found in result.links]
    return published


def real_forecasts(path: Path, capacity: str | None, model: str) -> list[dict[str, Any]]:
    """The forecast of each series in a file of real traffic."""
    from forecasting.capacity_rules import read_capacity_rules, rules_for
    from forecasting.command import forecast_series

    today = datetime.datetime.now(datetime.UTC).date()
    result = forecast_series(
        path,
        horizon=HORIZON,
        capacity=capacity,
        model=model,
        rules=rules_for(read_capacity_rules(), day=today, link_class="domestic"),
        lead_time_days=LEAD_TIME_DAYS,
    )
    return [link.as_dict() for link in result.links]
