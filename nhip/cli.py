"""The ``nhip`` command: the one place where probes, collector, forecasting and dashboards meet.

Each command imports its world inside its function, so that ``nhip --help`` costs nothing and a probe host
never loads what only the collector needs.

Exit codes: 0 done, 1 done and the answer is bad (target unreachable, file wrong, demo out of tolerance),
2 could not be done; the message then says what to do.
"""

from __future__ import annotations

import click

from nhip import __version__
from nhip.commands import files, forecasting, keeping, measuring, miniature, serving, showing


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nhip")
@click.option("--lang", "language", type=click.Choice(["vi", "en"]), help="Language of what is printed.")
@click.pass_context
def main(context: click.Context, language: str | None) -> None:
    """Nhịp: measures Internet, 3G, 4G and 5G, keeps what it measured, judges it, forecasts it.

    \b
    Nhịp: đo Internet, 3G, 4G, 5G; lưu, đánh giá và dự báo.
    """
    from nhip.language import Language, preferred

    context.obj = Language(language) if language else preferred()


for command in (
    measuring.measure,
    measuring.kinds,
    measuring.sweep,
    serving.probe,
    serving.server,
    keeping.collector,
    keeping.quarantine,
    keeping.key,
    forecasting.forecast,
    showing.dashboards,
    miniature.lab,
    miniature.demo,
    files.check,
    files.schema,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
