"""Personal data is taken out of what is told, and nothing else is."""

from __future__ import annotations

import pytest

from convergedon.core import policy
from convergedon.core.errors import Unavailable
from convergedon.mediation.flows import FLOWS, step_name
from convergedon.mediation.privacy import MASKS, masked, private

ALL = {"mask": list(MASKS)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to jane.doe+x@mail.example.com.", "write to [email]."),
        ("call +49 30 1234567 or (030) 123456", "call [phone] or [phone]"),
        ("0049 30/123456, 089/12345678", "[phone], [phone]"),
        ("DE89 3704 0044 0532 0130 00 please", "[iban] please"),
        ("GB29NWBK60161331926819", "[iban]"),
    ],
)
def test_what_is_personal_is_masked(text: str, left: str) -> None:
    assert masked(text, MASKS) == left


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26T07:00:00.000Z",
        "00000000-0000-4000-8000-000000000000",
        "10.1.0.7 on ge-0/0/1, vlan 1234567, 400000 Mbit/s",
        "1.3.6.1.6.3.1.1.5.3=0; seen 12 times",
        "https://gateway.example/tmf-api/productOrderingManagement/v4/productOrder/0301-123456",
        "Order 7b1e9f00-0123-4567-8901-0123456789ab is completed.",
    ],
)
def test_what_is_not_stays(text: str) -> None:
    """Times, addresses, identifiers and what devices say look a little like telephone numbers."""
    assert masked(text, MASKS) == text


def test_members_are_taken_away_through_lists_and_at_every_place() -> None:
    body = {"a": [{"id": "1", "name": "Jane"}, {"id": "2", "b": {"name": "Jo"}}], "name": "kept"}

    told = private(body, {"redact": ["a.name", "a.b.name", "c.name"]})

    assert told == {"a": [{"id": "1"}, {"id": "2", "b": {}}], "name": "kept"}
    assert body["a"][0] == {"id": "1", "name": "Jane"}  # type: ignore[index]


@pytest.mark.parametrize("party", [{"id": "northwind"}, {"role": "x", "partyOrPartyRole": {"id": "northwind"}}])
def test_who_is_told_of_itself_keeps_it(party: dict[str, object]) -> None:
    """In the form of each version; what is said of another party goes."""
    mine = {**party, "name": "Jane", "mail": "jane@northwind.example"}
    other = {"id": "contoso", "name": "Jo", "mail": "jo@contoso.example"}

    told = private({"relatedParty": [mine, other]}, {"redact": ["relatedParty.name"], **ALL}, ["northwind"])

    assert told == {"relatedParty": [mine, {"id": "contoso", "mail": "[email]"}]}


def test_what_nobody_can_mask_is_not_told() -> None:
    with pytest.raises(Unavailable, match="mask shoe-size"):
        private({}, {"mask": ["email", "shoe-size"]})


def test_the_policies_know_the_steps_of_the_flows() -> None:
    """A step that is renamed must not lose what data.json says of it."""
    steps = {step_name(step) for flow in FLOWS.values() for step in flow}

    assert set(policy.read().data["steps"]["ending"]) <= steps


def test_the_policies_oblige_to_what_can_be_done() -> None:
    rules = [*policy.read().data["personal"]["kinds"].values(), policy.read().data["personal"]["told"]]

    assert {kind for rule in rules for kind in rule["mask"]} <= MASKS.keys()
