"""What usage costs: Decimal from the first product to the rounded line, and rounded at one place only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from convergedon.core.errors import Invalid, Misconfigured


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


def rate(usage: Mapping[str, Any], tariff: Tariff) -> dict[str, Decimal]:
    """charge name -> exact amount without tax. Raises Invalid for a usage type or a value that has no price."""
    type_ = usage.get("usageType", "")
    if type_ not in tariff.charges:
        raise Invalid(f"the tariff has no usage type {type_!r}")
    given = {c["name"]: c["value"] for c in usage.get("usageCharacteristic") or []}
    return {charge.name: _quantity(given, charge) / charge.per * charge.price for charge in tariff.charges[type_]}


def _quantity(given: Mapping[str, Any], charge: Charge) -> Decimal:
    value = given.get(charge.characteristic, 0)
    try:
        quantity = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"{charge.characteristic} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not quantity.is_finite() or quantity < 0:
        raise Invalid(f"{charge.characteristic} must be a number from 0, not {value!r}")
    return quantity


def round_money(amount: Decimal, tariff: Tariff) -> Decimal:
    """The one place where money is rounded: a bill's line, and the tax on it."""
    return amount.quantize(Decimal(1).scaleb(-tariff.places), ROUND_HALF_UP)


def money(amount: Decimal, tariff: Tariff) -> dict[str, Any]:
    """TMF's Money. Fifteen digits go through a JSON number unchanged; exact amounts are kept as text beside it."""
    return {"unit": tariff.currency, "value": float(amount)}


def load(path: Path | None = None) -> Tariff:
    """Read a tariff, or the one that ships. Raises Misconfigured naming file and key."""
    source = path or files(__package__).joinpath("tariff.yaml")
    try:
        read = yaml.safe_load(source.read_text(encoding="utf-8"))
        charges = {
            type_: [
                Charge(
                    c["name"],
                    c["characteristic"],
                    _decimal(c["per"], f"{type_}.per"),
                    _decimal(c["price"], f"{type_}.price"),
                )
                for c in listed
            ]
            for type_, listed in read["charges"].items()
        }
        tariff = Tariff(read["currency"], int(read["places"]), _decimal(read["tax"], "tax"), charges)
        unknown = read.keys() - {"currency", "places", "tax", "charges"}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]}: unknown key")
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise Misconfigured(f"tariff {source}: {error}") from error
    except KeyError as error:
        raise Misconfigured(f"tariff {source}: {error.args[0]} is missing") from error
    return tariff


def _decimal(value: Any, key: str) -> Decimal:
    """A price is written as text or a whole number: a YAML float has lost its last digit already."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key}: write {value!r} as text or a whole number")
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{key}: {value!r} is not a number") from None
    if not found.is_finite() or found < 0:
        raise ValueError(f"{key}: {value!r} must be a number from 0")
    return found
