"""What usage costs: Decimal from the first product to the rounded line, and rounded at one place only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Invalid, Misconfigured

SAME_TRAFFIC = (("ip-traffic", "interface-traffic"),)
"""Usage types of which a service may have both, of the same octets."""
MOST = 10**20
"""More than any 64-bit counter holds; what is beyond could not be rounded to a cent in 28 digits."""


@dataclass(frozen=True)
class Charge:
    """``price`` in the tariff's currency for ``per`` units of a usage characteristic."""

    name: str
    characteristic: str
    per: Decimal
    price: Decimal


@dataclass(frozen=True)
class Tariff:
    currency: str
    places: int
    tax: Decimal
    charges: Mapping[str, Sequence[Charge]]


def _exact(given: Any) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError("write it as text or a whole number")
    try:
        found = Decimal(given)
    except InvalidOperation:
        raise ValueError("is not a number") from None
    if not found.is_finite() or found < 0:
        raise ValueError("must be a number from 0")
    return found


Text = Annotated[str, StringConstraints(min_length=1)]


def rate(usage: Mapping[str, Any], tariff: Tariff) -> dict[str, Decimal]:
    """charge name -> exact amount without tax. Raises Invalid for a usage type or a value that has no price."""
    type_ = usage.get("usageType", "")
    if type_ not in tariff.charges:
        raise Invalid(f"the tariff has no usage type {type_!r}")
    given = {c["name"]: c["value"] for c in usage.get("usageCharacteristic") or []}
    return {charge.name: _quantity(given, charge) * charge.price / charge.per for charge in tariff.charges[type_]}


def _quantity(given: Mapping[str, Any], charge: Charge) -> Decimal:
    value = given.get(charge.characteristic, 0)
    try:
        quantity = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"{charge.characteristic} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not quantity.is_finite() or not 0 <= quantity < MOST:
        raise Invalid(f"{charge.characteristic} must be a number from 0 that a counter can hold, not {value!r}")
    return quantity


def round_money(amount: Decimal, tariff: Tariff) -> Decimal:
    """The one place where money is rounded: a bill's line, and the tax on it."""
    return amount.quantize(Decimal(1).scaleb(-tariff.places), ROUND_HALF_UP)


def money(amount: Decimal, tariff: Tariff) -> dict[str, Any]:
    """TMF's Money. Fifteen digits go through a JSON number unchanged; exact amounts are kept as text beside it."""
    return {"unit": tariff.currency, "value": float(amount)}


class Price(strict.Strict):
    """A charge as the file says it. A YAML float has lost its last digit already: numbers are texts, or whole."""

    name: Text
    characteristic: Text
    per: Annotated[Decimal, BeforeValidator(_exact), Field(gt=0)]
    price: Annotated[Decimal, BeforeValidator(_exact)]


class Document(strict.Strict):
    """The file as a whole."""

    currency: Text
    places: int = Field(ge=0, le=6)
    tax: Annotated[Decimal, BeforeValidator(_exact)]
    charges: dict[Text, list[Price]]


def load(path: Path | None = None) -> Tariff:
    """Read a tariff, or the one that ships. Raises Misconfigured naming file, line and key."""
    file = path or files(__package__).joinpath("tariff.yaml")
    read = strict.read(Document, file)
    for one, other in SAME_TRAFFIC:
        if read.charges.get(one) and read.charges.get(other):
            raise Misconfigured(
                f"{strict.where(file, 'charges', other)}: counts the same traffic as {one}, and a service with both "
                "would be billed twice: name one of them"
            )
    charges = {type_: [Charge(**dict(price)) for price in listed] for type_, listed in read.charges.items()}
    return Tariff(read.currency, read.places, read.tax, charges)
