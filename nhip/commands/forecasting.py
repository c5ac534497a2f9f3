"""``nhip forecast``: when each limit of a link will be reached."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nhip.commands.common import explained
from nhip.errors import ConfigError


@click.command()
@click.argument("series", type=click.Path(path_type=Path))
@click.option("--horizon", default="30d", show_default=True, help="48h, 30d or 12w.")
@click.option("--capacity", help="Of the link, such as 10Gbit/s; without it no crossing date is given.")
@click.option("--model", help="seasonal_naive or ets; by default ets by day, seasonal_naive by the hour.")
@click.option(
    "--link-class",
    type=click.Choice(["international", "domestic", "interconnection"]),
    default="domestic",
    show_default=True,
    help="Which capacity rules apply.",
)
@click.option("--lead-time", "lead_time_days", default=90, show_default=True, help="Days to add capacity.")
@click.option("--series-id", help="Only this series of the file.")
@click.option("--unit", help="Unit of the values, where the file does not say it (bit/s, octets, ...).")
@click.option("--statistic", help="daily_mean, daily_p95 or daily_peak: what a daily value is.")
@click.option("--publish", metavar="URL", help="Also hand the result to the collector at URL.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Forecast key for --publish.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def forecast(
    language: Any,
    series: Path,
    horizon: str,
    capacity: str | None,
    model: str | None,
    link_class: Any,
    lead_time_days: int,
    series_id: str | None,
    unit: str | None,
    statistic: str | None,
    publish: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Forecast the traffic in SERIES (CSV: timestamp,value[,series_id]) and say when each limit is reached.

    Exit code 1: some series of the file were refused; the table says which and why.
    """
    import datetime

    with explained():
        from forecasting.capacity_rules import read_capacity_rules, rules_for
        from forecasting.command import forecast_series, parse_horizon
        from forecasting.render import render_table, to_json

        if publish and key_file is None:
            raise ConfigError("--publish needs a key", remedy="name its file with --key-file")
        result = forecast_series(
            series,
            horizon=horizon,
            capacity=capacity,
            # Below a day ETS was measured worse than the naive model on real series.
            model=model or ("ets" if parse_horizon(horizon)[1] else "seasonal_naive"),
            rules=rules_for(read_capacity_rules(), day=datetime.date.today(), link_class=link_class),
            lead_time_days=lead_time_days,
            series_id=series_id,
            unit=unit,
            daily_statistic=statistic,
        )
        if publish and key_file is not None:
            from nhip.publish import publish_forecasts
            from nhip.secret import read_key_file

            publish_forecasts(publish, read_key_file(key_file), [link.as_dict() for link in result.links])
    click.echo(to_json(result) if as_json else render_table(result, language))
    sys.exit(1 if result.refused else 0)
