import pytest

from forecasting.units import parse_rate, parse_unit, scale_for
from nhip.errors import SeriesError


@pytest.mark.parametrize(
    ("text", "bits_per_second"),
    [
        ("10Gbit/s", 10e9),
        ("400 Mbit/s", 400e6),
        ("1.5Tbps", 1.5e12),
        ("1,5 Tbit/s", 1.5e12),
        ("64kbit/s", 64e3),
        ("125MB/s", 1e9),
        ("7bit/s", 7.0),
    ],
)
def test_rate_with_its_unit_is_read_as_bits_per_second(text: str, bits_per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(bits_per_second)


@pytest.mark.parametrize(
    "text", ["10", "10GB", "-3Gbit/s", "0Gbit/s", "ten Gbit/s", "10 Gbit", "", "1e9bit/s"]
)
def test_rate_without_a_usable_unit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SeriesError) as caught:
        parse_rate(text)
    assert "Gbit/s" in caught.value.remedy


def test_prefixes_are_decimal_and_bytes_are_eight_bits() -> None:
    assert parse_unit("Gbit/s") == ("bit/s", 1e9)
    assert parse_unit("kB/s") == ("bit/s", 8e3)
    assert parse_unit("GB") == ("bytes", 1e9)


def test_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SeriesError, match="'packets' is unknown") as caught:
        parse_unit("packets")
    assert "Mbit/s" in caught.value.remedy


def test_scale_follows_the_largest_number_shown() -> None:
    assert scale_for(9.9e9, "bit/s") == (1e9, "Gbit/s")
    assert scale_for(999.0, "bit/s") == (1.0, "bit/s")
    assert scale_for(2e6, "bytes") == (1e6, "MB")
