"""Money is Decimal, exact until it is rounded at one place, and a bill is the sum of its lines."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Invalid, Misconfigured
from convergedon.mediation import rating
from convergedon.mediation.rating import Charge, Tariff, rate, round_money

SHIPPED = rating.load()
TARIFF = """
currency: EUR
places: 2
tax: "0.19"
charges:
  ip-traffic:
    - {name: download, characteristic: octetsDown, per: 1000000000, price: "0.08"}
"""


def usage(**given: Any) -> dict[str, Any]:
    return {
        "usageType": "ip-traffic",
        "usageCharacteristic": [{"name": name, "value": value} for name, value in given.items()],
    }


def tariff(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tariff.yaml"
    path.write_text(text)
    return path


def test_each_charge_is_its_characteristic_times_its_price() -> None:
    """5 GB down at 8 cents and 1 GB up at 4."""
    assert rate(usage(octetsDown=5_000_000_000, octetsUp=1_000_000_000), SHIPPED) == {
        "download": Decimal("0.40"),
        "upload": Decimal("0.04"),
    }


@given(st.integers(0, 2**63 - 1), st.decimals(0, 1000, places=4, allow_nan=False), st.integers(0, 12))
def test_an_amount_is_exact(quantity: int, price: Decimal, power: int) -> None:
    """No digit is lost before the line is rounded, for as much as a 64-bit counter holds."""
    one = Tariff("EUR", 2, Decimal(), {"ip-traffic": [Charge("c", "octetsDown", Decimal(10**power), price)]})

    amount = rate(usage(octetsDown=quantity), one)["c"]

    assert Fraction(amount) == Fraction(quantity) * Fraction(price) / 10**power


@given(st.lists(st.integers(0, 10**12), max_size=30))
def test_rounding_later_is_at_most_half_a_cent_away(quantities: list[int]) -> None:
    """A line is the rounded sum of exact amounts, not the sum of rounded ones."""
    exact = sum((rate(usage(octetsDown=q), SHIPPED)["download"] for q in quantities), Decimal())

    line = round_money(exact, SHIPPED)

    assert abs(line - exact) <= Decimal("0.005")
    assert line == exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert -line.as_tuple().exponent == SHIPPED.places


@pytest.mark.parametrize(("exact", "rounded"), [("0.005", "0.01"), ("0.0049999", "0.00"), ("2.675", "2.68")])
def test_half_a_cent_rounds_up(exact: str, rounded: str) -> None:
    """As people round, not as binary floats or bankers do."""
    assert round_money(Decimal(exact), SHIPPED) == Decimal(rounded)


def test_a_characteristic_that_is_not_there_costs_nothing() -> None:
    """A usage need not have every characteristic that has a price."""
    assert rate(usage(), SHIPPED) == {"download": 0, "upload": 0}


@pytest.mark.parametrize(
    "value", [-1, "many", "", None, True, "NaN", "Infinity", [1], {"value": 1}, -0.5, 10**40, "1E+999999"]
)
def test_a_value_without_a_price_is_refused(value: Any) -> None:
    """Nothing that is not a plausible number gets as far as a bill."""
    with pytest.raises(Invalid, match="octetsDown"):
        rate(usage(octetsDown=value), SHIPPED)


def test_a_usage_type_without_a_tariff_is_refused() -> None:
    """It is not rated as nothing."""
    with pytest.raises(Invalid, match="no usage type 'voice'"):
        rate({"usageType": "voice"}, SHIPPED)


@given(st.decimals(0, 10**12, places=2, allow_nan=False))
def test_money_in_json_is_the_amount(amount: Decimal) -> None:
    """A rounded amount comes back from JSON as it was."""
    assert Decimal(str(rating.money(amount, SHIPPED)["value"])) == amount


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('price: "0.08"', "price: 0.08", "charges.ip-traffic.0.price"),
        ('price: "0.08"', 'price: "-0.08"', "charges.ip-traffic.0.price"),
        ('price: "0.08"', 'price: "cheap"', "charges.ip-traffic.0.price"),
        ('price: "0.08"', "price: true", "charges.ip-traffic.0.price"),
        ("per: 1000000000", "per: 1.0e+9", "charges.ip-traffic.0.per"),
        ("per: 1000000000", "per: 0", "charges.ip-traffic.0.per"),
        ("per: 1000000000", "per: -1", "charges.ip-traffic.0.per"),
        ('tax: "0.19"', "tax: 0.19", "tax"),
        ('tax: "0.19"', 'tax: "Infinity"', "tax"),
        ('tax: "0.19"', 'vat: "0.19"', "tax: this key is missing"),
        ("places: 2", "places: 2\ndiscount: 5", "discount"),
        ("places: 2", "places: 2.5", "places"),
        ("places: 2", "places: -2", "places"),
        ("name: download,", "name: download, prize: 5,", "prize"),
        ("characteristic: octetsDown,", "", "characteristic"),
    ],
)
def test_a_wrong_tariff_is_refused_at_load(tmp_path: Path, old: str, new: str, key: str) -> None:
    """The operator reads file, line and key before anything is rated."""
    assert old in TARIFF
    path = tariff(tmp_path, TARIFF.replace(old, new, 1))

    with pytest.raises(Misconfigured) as refused:
        rating.load(path)

    assert re.match(rf"{re.escape(str(path))}, line \d+: ", str(refused.value))
    assert key in str(refused.value)


def test_what_counts_the_same_traffic_is_not_priced_twice(tmp_path: Path) -> None:
    """A service may have flow records and an interface that is polled: each octet is in both."""
    both = f"{TARIFF}  interface-traffic:\n    - {{name: d, characteristic: octetsDown, per: 1, price: 1}}\n"
    path = tariff(tmp_path, both)

    with pytest.raises(Misconfigured) as refused:
        rating.load(path)
    assert str(refused.value).startswith(
        f"{path}, line {both.count(chr(10)) - 1}: charges.interface-traffic: counts the"
    )
    only = both.replace("  ip-traffic:", "  something-else:")
    assert set(rating.load(tariff(tmp_path, only)).charges) == {"something-else", "interface-traffic"}


@pytest.mark.parametrize("text", ["", "[]", "charges: [", "currency: EUR"])
def test_what_is_no_tariff_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, the operator gets one sentence."""
    path = tariff(tmp_path, text)

    with pytest.raises(Misconfigured, match=r"tariff\.yaml"):
        rating.load(path)
