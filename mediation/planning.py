"""From an order's item to what the network must do: decided by the product model, without touching anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from convergedon.core import strict
from convergedon.core.errors import Invalid, Misconfigured

Values = Mapping[str, Any]
ACTIONS = ("add", "modify", "delete", "noChange")


class Incomplete(Invalid):
    """An item that could be planned if it said more; ``path`` is the member of the item that is missing."""

    def __init__(self, path: str, words: str) -> None:
        super().__init__(words)
        self.path = path


@dataclass(frozen=True)
class Wanted:
    """The desired state of one service on one device; ``values`` None: it must not be there.

    ``object`` is the part of the device that the service stands on, ``address`` the customer's in it, ``site`` where it
    is delivered.
    """

    adapter: str
    device: str
    service: str
    values: Values | None
    object: str = ""
    address: str = ""
    site: str = field(default="", compare=False)

    @property
    def place(self) -> tuple[str, str, str]:
        return (self.adapter, self.device, self.service)


@dataclass(frozen=True)
class Template:
    adapter: str
    device: str
    service: str
    object: str
    address: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Offering:
    id: str
    name: str
    characteristics: Mapping[str, Mapping[str, Any]]
    intents: Sequence[Template]


@dataclass(frozen=True)
class Products:
    offerings: Mapping[str, Offering]
    sites: Mapping[str, Mapping[str, Values]]


@dataclass(frozen=True)
class Present:
    """What an active service is: its offering, its characteristics, and what was asked of the network for it."""

    offering: str
    given: Values
    wanted: tuple[Wanted, ...]


def plan(item: Values, tenant: str, products: Products, present: Present | None) -> list[Wanted]:
    """What an item asks of the network; ``present`` is the service that it changes or ends.

    Raises Invalid in words for the customer: an unknown offering, a value out of bounds; Incomplete for what is not
    said: the offering of an add, the product of anything else, a characteristic.
    """
    action = item.get("action")
    if action not in ACTIONS:
        raise Invalid(f"action {action} is none of {', '.join(ACTIONS)}")
    if action == "noChange":
        return []
    if action == "add" and present is not None:
        raise Invalid("an add names a product that exists already")
    if action != "add" and present is None:
        words = f"a {action} must name the id of an active product"
        raise Invalid(words) if (item.get("product") or {}).get("id") else Incomplete("product.id", words)
    if action == "delete" and present is not None:
        return [replace(wanted, values=None) for wanted in present.wanted]
    offering = _offering(item, products, present)
    given = {**(present.given if present else {}), **characteristics(item)}
    scope, site = _scope(offering, given, tenant, products), _site(offering, given)
    wanted = [replace(_fill(template, scope), site=site) for template in offering.intents]
    places = {former.place: former for former in (present.wanted if present else ())}
    moved_away = [replace(places[place], values=None) for place in places.keys() - {w.place for w in wanted}]
    return wanted + moved_away


def characteristics(item: Values) -> dict[str, Any]:
    """name -> value of an item's product characteristics."""
    listed = (item.get("product") or {}).get("productCharacteristic") or []
    return {characteristic["name"]: characteristic.get("value") for characteristic in listed}


def _site(offering: Offering, given: Values) -> str:
    """The site that was chosen, where the offering has one to choose."""
    return next((str(given[name]) for name, rule in offering.characteristics.items() if rule["type"] == "site"), "")


def offering_id(item: Values) -> str:
    return str((item.get("productOffering") or {}).get("id", ""))


def _offering(item: Values, products: Products, present: Present | None) -> Offering:
    id = offering_id(item) or (present.offering if present else "")
    if not id:
        raise Incomplete("productOffering", "an add must name its product offering")
    if id not in products.offerings:
        raise Invalid(f"there is no product offering {id!r}")
    return products.offerings[id]


def _scope(offering: Offering, given: Values, tenant: str, products: Products) -> dict[str, Any]:
    """The names that expressions may use: checked characteristics, and the site's members as ``site.*``."""
    scope = {
        name: _checked(name, given[name], rule, tenant, products)
        for name, rule in offering.characteristics.items()
        if name in given
    }
    if missing := [name for name in offering.characteristics if name not in given]:
        named = f"characteristic{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise Incomplete("product.productCharacteristic", f"{offering.id} needs the {named}")
    return scope


def _checked(name: str, value: Any, rule: Values, tenant: str, products: Products) -> Any:
    if rule["type"] == "site":
        sites = products.sites.get(tenant, {})
        if not isinstance(value, str) or value not in sites:
            raise Invalid(f"{name} {value!r} is none of {', '.join(sorted(sites)) or 'this tenant (it has no sites)'}")
        return sites[value]
    if rule["type"] == "string":
        if not isinstance(value, str):
            raise Invalid(f"{name} must be text, not {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(f"{name} must be a whole number, not {value!r}")
    if not rule["minimum"] <= value <= rule["maximum"]:
        raise Invalid(f"{name} must be between {rule['minimum']} and {rule['maximum']}, not {value}")
    return value


def _fill(template: Template, scope: Values) -> Wanted:
    return Wanted(
        template.adapter,
        str(evaluate(template.device, scope)),
        template.service,
        {name: evaluate(expression, scope) for name, expression in template.values.items()},
        str(evaluate(template.object, scope)) if template.object else "",
        str(evaluate(template.address, scope)) if template.address else "",
    )


def _host(network: Any, number: Any) -> str:
    """The address with a number in a network. Raises Invalid when the network has not that many."""
    whole = ip_network(network)
    if not 0 <= int(number) < whole.num_addresses:
        raise Invalid(f"network {network} has no address number {number}")
    return str(whole[int(number)])


FUNCTIONS: Mapping[str, Callable[..., Any]] = {"host": _host}
CALL = re.compile(r"(\w+)\(([^()]*)\)")


def evaluate(expression: str, scope: Values) -> Any:
    """A name, a member of one (``site.device``), or a function of such. Raises KeyError for an unknown name."""
    if call := CALL.fullmatch(expression):
        return FUNCTIONS[call[1]](*(evaluate(part.strip(), scope) for part in call[2].split(",")))
    value: Any = scope
    for name in expression.split("."):
        value = value[name]
    return value


def load(path: Path | None = None) -> Products:
    """Read a product model, or the one that ships. Raises Misconfigured naming file and key."""
    source = path or files(__package__).joinpath("products.yaml")
    try:
        _, read = strict.parsed(source)
        if not isinstance(read, dict):
            raise ValueError("must be keys and values")
        sites = {str(tenant): dict(named) for tenant, named in (read.pop("sites", None) or {}).items()}
        offerings = {id: _read_offering(id, about) for id, about in read.pop("offerings").items()}
        if read:
            raise ValueError(f"{next(iter(read))}: unknown key")
        _check(offerings, sites)
    except (ValueError, TypeError, AttributeError) as error:
        raise Misconfigured(f"product model {source}: {error}") from error
    except KeyError as error:
        raise Misconfigured(f"product model {source}: {error.args[0]} is missing or unknown") from error
    return Products(offerings, sites)


def _read_offering(id: str, about: Mapping[str, Any]) -> Offering:
    unknown = about.keys() - {"name", "characteristics", "intents"}
    if unknown:
        raise ValueError(f"offerings.{id}.{sorted(unknown)[0]}: unknown key")
    for name, rule in about["characteristics"].items():
        if rule.get("type") not in ("integer", "string", "site"):
            raise ValueError(f"offerings.{id}.characteristics.{name}: type must be integer, string or site")
        if rule["type"] == "integer" and not rule.get("minimum", 1) <= rule.get("maximum", -1):
            raise ValueError(f"offerings.{id}.characteristics.{name}: minimum and maximum are needed")
    templates = [Template(**{"object": "", "address": "", **intent}) for intent in about["intents"]]
    return Offering(id, about.get("name", id), about["characteristics"], templates)


def _check(offerings: Mapping[str, Offering], sites: Mapping[str, Mapping[str, Values]]) -> None:
    """Evaluate every expression once for each site, so that a mistake shows at load and not in an order."""
    for tenant, named in sites.items():
        for offering in offerings.values():
            for site in named:
                samples = {"integer": 1, "string": "x", "site": site}
                given = {
                    name: rule.get("minimum", samples[rule["type"]]) for name, rule in offering.characteristics.items()
                }
                scope = _scope(offering, given, tenant, Products(offerings, sites))
                try:
                    for template in offering.intents:
                        _fill(template, scope)
                except Invalid as error:
                    raise ValueError(f"sites.{tenant}.{site}: {error}") from error
