from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from forecasting.resample import daily
from forecasting.simulate import Holiday, SimulatedLink, Surge, simulate, start_before
from nhip.errors import SeriesError

START = datetime(2025, 5, 31, 17, tzinfo=UTC)  # 1 June, local midnight


def quiet(**settings: object) -> SimulatedLink:
    return SimulatedLink("a", 1e9, noise_ratio=0.0, **settings)  # type: ignore[arg-type]


def test_everything_simulated_says_so() -> None:
    frame = simulate((SimulatedLink("a", 1e9),), start=START, days=3)
    assert set(frame.table["provenance"]) == {"simulated"}
    assert frame.unit == "bit/s"


def test_same_seed_gives_the_same_history_whoever_stands_beside_it() -> None:
    a, b = SimulatedLink("a", 1e9), SimulatedLink("b", 2e9)
    alone = simulate((a,), start=START, days=5, seed=7).series("a").values
    beside = simulate((b, a), start=START, days=5, seed=7).series("a").values
    other = simulate((a,), start=START, days=5, seed=8).series("a").values
    np.testing.assert_array_equal(alone, beside)
    assert not np.allclose(alone, other)


def test_first_week_has_the_mean_that_was_asked_for() -> None:
    series = simulate((quiet(growth_per_year=0.0),), start=START, days=7, step_seconds=300).series("a")
    assert series.values.mean() == pytest.approx(1e9, rel=0.005)


def test_evening_is_the_peak_and_night_the_valley_in_local_time() -> None:
    series = simulate((quiet(),), start=START, days=1).series("a")
    assert np.argmax(series.values) == 21
    assert np.argmin(series.values) == 4


def test_year_grows_by_the_growth_that_was_asked_for() -> None:
    series = simulate((quiet(growth_per_year=0.4),), start=START, days=372).series("a")
    days = daily(series, "daily_mean").values
    assert days[364:371].mean() / days[:7].mean() == pytest.approx(1.4, rel=0.01)


def test_noise_has_the_size_and_the_memory_that_were_asked_for() -> None:
    link = SimulatedLink("a", 1e9, growth_per_year=0.0, noise_ratio=0.1, noise_hours=12.0)
    noisy = simulate((link,), start=START, days=700).series("a").values
    still = simulate((quiet(growth_per_year=0.0),), start=START, days=700).series("a").values
    noise = np.log(noisy / still)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert np.corrcoef(noise[12:], noise[:-12])[0, 1] == pytest.approx(np.exp(-1), abs=0.06)


def test_tet_moves_traffic_on_its_days_and_fades_around_them() -> None:
    tet = date(2026, 2, 17)
    with_tet = daily(
        simulate((quiet(holidays=(Holiday(tet, 1.5),)),), start=START, days=300).series("a"), "daily_mean"
    )
    without = daily(simulate((quiet(),), start=START, days=300).series("a"), "daily_mean")
    ratio = with_tet.values / without.values
    on = (tet - date(2025, 6, 1)).days
    assert ratio[on] == pytest.approx(1.5)
    assert 1 < ratio[on - 3] < 1.5 and 1 < ratio[on + 5] < 1.5
    assert ratio[on - 6] == ratio[on + 8] == pytest.approx(1.0)


def test_surge_ramps_up_and_stays() -> None:
    surge = Surge(date(2025, 7, 1), 1.4, ramp_days=7)
    risen = daily(simulate((quiet(surges=(surge,)),), start=START, days=60).series("a"), "daily_mean")
    plain = daily(simulate((quiet(),), start=START, days=60).series("a"), "daily_mean")
    ratio = risen.values / plain.values
    assert ratio[29] == pytest.approx(1.0)
    assert ratio[30] == pytest.approx(1 + 0.4 / 7)
    np.testing.assert_allclose(ratio[36:], 1.4)


def test_step_that_cuts_a_day_unevenly_and_start_without_a_zone_are_refused() -> None:
    with pytest.raises(SeriesError, match="does not divide a day"):
        simulate((SimulatedLink("a", 1e9),), start=START, days=3, step_seconds=7_000)
    with pytest.raises(SeriesError, match="has no zone"):
        simulate((SimulatedLink("a", 1e9),), start=START.replace(tzinfo=None), days=3)


def test_history_before_now_ends_with_yesterday() -> None:
    now = datetime(2026, 11, 24, 20, 30, tzinfo=UTC)  # 25 November, 03:30 local
    start = start_before(now, 10)
    assert start + timedelta(days=10) == datetime(2026, 11, 24, 17, tzinfo=UTC)
