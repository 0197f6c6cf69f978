"""A plan is what an order's item asks of the network, or a refusal in words for the customer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Invalid, Misconfigured
from convergedon.mediation import planning
from convergedon.mediation.planning import Present, Wanted, plan

PRODUCTS = planning.load()
BERLIN = {"bandwidth": 100, "vlan": 110, "site": "berlin-1"}
MODEL = """
offerings:
  access:
    characteristics:
      vlan: {type: integer, minimum: 1, maximum: 300}
      site: {type: site}
    intents:
      - {adapter: loopback, device: site.device, service: access, values: {address: "host(site.network, vlan)"}}
sites:
  acme:
    small: {device: pe1, network: 10.0.0.0/24}
"""


def item(action: str = "add", offering: str | None = "internet-access", **given: Any) -> dict[str, Any]:
    named = {"id": "1", "action": action}
    if offering:
        named["productOffering"] = {"id": offering}
    listed = [{"name": name, "value": value} for name, value in given.items()]
    return {**named, "product": {"productCharacteristic": listed}}


def present(**given: Any) -> Present:
    return Present("internet-access", given, tuple(plan(item(**given), "acme", PRODUCTS, None)))


def model(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "products.yaml"
    path.write_text(text)
    return path


def test_an_add_asks_for_what_the_model_says_of_its_site() -> None:
    """Device, port and address come from the site, the rest from the order."""
    assert plan(item(**BERLIN), "acme", PRODUCTS, None) == [
        Wanted(
            "netconf",
            "pe1",
            "internet-access",
            {"interface": "ge-0/0/1", "vlan": 110, "bandwidth": 100, "address": "10.1.0.110"},
            "ge-0/0/1",
            "10.1.0.110",
        )
    ]


def test_a_modify_keeps_what_it_does_not_name() -> None:
    """A change of bandwidth is no change of anything else."""
    (wanted,) = plan(item("modify", None, bandwidth=200), "acme", PRODUCTS, present(**BERLIN))

    assert wanted.values == {"interface": "ge-0/0/1", "vlan": 110, "bandwidth": 200, "address": "10.1.0.110"}


def test_a_delete_takes_away_exactly_what_is_there() -> None:
    """The former places are asked to have nothing."""
    former = present(**BERLIN)

    assert [(w.place, w.values) for w in plan(item("delete", None), "acme", PRODUCTS, former)] == [
        (former.wanted[0].place, None)
    ]


def test_no_change_asks_for_nothing() -> None:
    """An item with noChange is only mentioned."""
    assert plan(item("noChange"), "acme", PRODUCTS, None) == []


def test_a_moved_site_removes_the_old_place() -> None:
    """A service that moves to another device leaves nothing behind on the first."""
    wanted = plan(item("modify", None, site="hamburg-1"), "acme", PRODUCTS, present(**BERLIN))

    assert {w.device: w.values is None for w in wanted} == {"pe2": False, "pe1": True}


ORDERS = st.fixed_dictionaries(
    {
        "bandwidth": st.integers(1, 400000),
        "vlan": st.integers(1, 4094),
        "site": st.sampled_from(["berlin-1", "berlin-2", "hamburg-1"]),
    }
)


@given(ORDERS, st.lists(ORDERS, max_size=3))
def test_the_network_has_what_the_last_order_wants_and_nothing_else(first: dict[str, Any], later: list[Any]) -> None:
    """However often a service is changed and moved, nothing of it stays anywhere else; after its end nothing at all."""
    network: dict[Any, Any] = {}
    known: Present | None = None
    for number, wishes in enumerate([first, *later, None]):
        action = "add" if number == 0 else "delete" if wishes is None else "modify"
        wanted = plan(item(action, **(wishes or {})), "acme", PRODUCTS, known)
        for one in wanted:
            network[one.place] = one.values
        network = {place: values for place, values in network.items() if values is not None}
        if wishes is not None:
            known = Present("internet-access", wishes, tuple(w for w in wanted if w.values is not None))
            assert network == {w.place: w.values for w in plan(item(**wishes), "acme", PRODUCTS, None)}
    assert network == {}


@pytest.mark.parametrize(
    ("asked", "known", "words"),
    [
        (item("remove"), None, "action remove is none of add, modify, delete, noChange"),
        (item("modify", **BERLIN), None, "must name the id of an active product"),
        (item("delete"), None, "must name the id of an active product"),
        (item(**BERLIN), present(**BERLIN), "exists already"),
        (item(offering="television", **BERLIN), None, "there is no product offering 'television'"),
        (item(offering=None, **BERLIN), None, "an add must name its product offering"),
        (item(bandwidth=100, vlan=110), None, "internet-access needs the characteristic site"),
        (item(**BERLIN | {"bandwidth": 400001}), None, "bandwidth must be between 1 and 400000, not 400001"),
        (item(**BERLIN | {"vlan": 0}), None, "vlan must be between 1 and 4094, not 0"),
        (item(**BERLIN | {"bandwidth": "fast"}), None, "bandwidth must be a whole number, not 'fast'"),
        (item(**BERLIN | {"bandwidth": True}), None, "bandwidth must be a whole number, not True"),
        (item(**BERLIN | {"site": "paris-1"}), None, "site 'paris-1' is none of berlin-1, berlin-2, hamburg-1"),
        (item(**BERLIN | {"site": "munich-1"}), None, "site 'munich-1' is none of"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_would_be_right(asked: Any, known: Present | None, words: str) -> None:
    """The customer's side reads these words in the order's notes."""
    with pytest.raises(Invalid) as refused:
        plan(asked, "acme", PRODUCTS, known)

    assert words in str(refused.value)


def test_a_tenant_without_sites_is_told_so() -> None:
    """Another tenant's sites are not named."""
    with pytest.raises(Invalid, match="it has no sites"):
        plan(item(**BERLIN), "initech", PRODUCTS, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(sorted(BERLIN)), JSON)
def test_any_value_is_planned_or_refused(name: str, value: Any) -> None:
    """A characteristic holds any JSON; none of it is a fault of ours."""
    with contextlib.suppress(Invalid):
        assert plan(item(**BERLIN | {name: value}), "acme", PRODUCTS, None)


def test_a_number_that_the_network_has_not_is_refused(tmp_path: Path) -> None:
    """host() stays within its network: the order is refused and no neighbour's address is taken."""
    products = planning.load(model(tmp_path, MODEL))

    assert plan(item(offering="access", vlan=255, site="small"), "acme", products, None)[0].values == {
        "address": "10.0.0.255"
    }
    with pytest.raises(Invalid, match=r"10\.0\.0\.0/24 has no address number 256"):
        plan(item(offering="access", vlan=256, site="small"), "acme", products, None)


def test_host_does_not_count_from_the_end() -> None:
    """A number below zero is no address."""
    with pytest.raises(Invalid, match="no address number -1"):
        planning.evaluate("host(network, number)", {"network": "10.0.0.0/24", "number": -1})


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("sites:\n", "prices: {}\nsites:\n", "prices"),
        ("    intents:", "    price: 5\n    intents:", "offerings.access.price"),
        ("type: site", "type: place", "offerings.access.characteristics.site"),
        ("minimum: 1, maximum: 300", "maximum: 300, minimum: 301", "offerings.access.characteristics.vlan"),
        ("maximum: 300", "maximun: 300", "offerings.access.characteristics.vlan"),
        ("service: access,", "", "service"),
        ("service: access,", "servise: access, service: access,", "servise"),
        ("host(site.network, vlan)", "hots(site.network, vlan)", "hots"),
        ("host(site.network, vlan)", "site.port", "port"),
        ("host(site.network, vlan)", "wlan", "wlan"),
        ("network: 10.0.0.0/24", "network: 10.0.0.0/33", "10.0.0.0/33"),
        ("offerings:", "offering:", "offerings"),
        ("    characteristics:", "    characteristcs:", "characteristcs"),
    ],
)
def test_a_mistake_in_the_model_is_refused_at_load(tmp_path: Path, old: str, new: str, key: str) -> None:
    """The operator reads file and key before any order comes."""
    assert old in MODEL
    path = model(tmp_path, MODEL.replace(old, new, 1))

    with pytest.raises(Misconfigured) as refused:
        planning.load(path)

    assert str(path) in str(refused.value)
    assert key in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "offerings: [", "offerings: 5", "sites: {}"])
def test_what_is_no_model_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, the operator gets one sentence."""
    path = model(tmp_path, text)

    with pytest.raises(Misconfigured, match=r"products\.yaml"):
        planning.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is a sentence as well."""
    with pytest.raises(Misconfigured, match=r"absent\.yaml"):
        planning.load(tmp_path / "absent.yaml")
