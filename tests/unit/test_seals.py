"""A seal holds for the very message that was sealed, on its subject, by a key of the installation; for nothing else."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.role import question
from convergedon.core import bundles, policy, seals, settings
from convergedon.core.errors import Misconfigured
from convergedon.core.policy import Embedded, Policy, system
from convergedon.core.seals import MEMBER, Seals
from convergedon.demo import attempts, campaign
from convergedon.mediation import planning

OURS, THEIRS = Seals([b"o" * 32]), Seals([b"t" * 32])
OLD, NEW = "0" * 32, "1" * 32
SUBJECT = "intent.netconf.pe1"
OWNER = {"id": "mara", "tenant": "acme", "roles": ["noc"]}
INTENT = Intent(
    "order-1:1:0",
    "acme",
    "pe1",
    "internet-access",
    "order-1-1",
    {"bandwidth": 100, "vlan": 7, "interface": "ge-0/0/1"},
    1_800_000_000.25,
    order="order-1",
    site="berlin-1",
    owner=OWNER,
    workflow="reroute",
    approval={"by": OWNER, "time": 1_799_999_000.5, "decision": "approved"},
)
BODY = {"intent": asdict(INTENT), "reply": "network.3.outcome", "about": {"kind": "productOrder", "id": "order-1"}}
SEALED = OURS.sealed(SUBJECT, BODY)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document, at every depth."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, member in members for found in places(member, (*path, name)))]


PLACES = [path for path in places(SEALED) if path]


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        document = document[name]
    return document


def test_a_message_holds_however_its_members_are_ordered() -> None:
    """As it comes back from the store and from the bus."""
    shuffled = json.loads(json.dumps(dict(reversed(SEALED.items()))))
    shuffled["intent"] = dict(reversed(shuffled["intent"].items()))

    assert OURS.fault(SUBJECT, SEALED) == OURS.fault(SUBJECT, shuffled) == ""


@given(path=st.sampled_from(PLACES), other=values)
def test_whatever_is_changed_in_a_message_breaks_its_seal(path: tuple[Any, ...], other: Any) -> None:
    """Each member of the intent, the reply and what it is about, and the seal itself, at every depth."""
    changed = deepcopy(SEALED)
    whole, name = at(changed, path[:-1]), path[-1]
    same = json.dumps(whole[name], sort_keys=True) == json.dumps(other, sort_keys=True)
    whole[name] = other

    assert same or OURS.fault(SUBJECT, changed)


@given(path=st.sampled_from([(), ("intent",), ("about",), ("intent", "owner")]), name=st.text(max_size=9), value=values)
def test_whatever_is_added_to_a_message_breaks_its_seal(path: tuple[str, ...], name: str, value: Any) -> None:
    changed = deepcopy(SEALED)
    known = name in at(changed, path)
    at(changed, path).setdefault(name, value)

    assert known or OURS.fault(SUBJECT, changed)


@pytest.mark.parametrize("path", PLACES)
def test_whatever_is_left_out_of_a_message_breaks_its_seal(path: tuple[Any, ...]) -> None:
    changed = deepcopy(SEALED)
    del at(changed, path[:-1])[path[-1]]

    assert OURS.fault(SUBJECT, changed)


@pytest.mark.parametrize(
    ("subject", "body", "why"),
    [
        (SUBJECT, BODY, "no seal"),
        (SUBJECT, {**BODY, MEMBER: ""}, "not of this message"),
        (SUBJECT, {**BODY, MEMBER: "\N{SNOWMAN}"}, "not of this message"),
        (SUBJECT, {**BODY, MEMBER: 7}, "no seal"),
        (SUBJECT, {**BODY, MEMBER: OURS.sealed(SUBJECT, {**BODY, "reply": ""})[MEMBER]}, "not of this message"),
        (SUBJECT, THEIRS.sealed(SUBJECT, BODY), "a key that is not known here"),
        ("intent.netconf.pe2", SEALED, "not of this message"),
        ("intent.snmp.pe1", SEALED, "not of this message"),
        (SUBJECT, [SEALED], "no seal"),
        (SUBJECT, None, "no seal"),
    ],
)
def test_what_was_not_sealed_for_this_is_told_why(subject: str, body: Any, why: str) -> None:
    """Without a seal, with another message's, another key's or another place's."""
    assert why in OURS.fault(subject, body)


def test_a_key_is_replaced_while_both_hold() -> None:
    """Workers that seal with the old key and those that have the new one are understood until the old one goes."""
    before, between, after = [seals.seals(settings.load(intent_key=keys)) for keys in (OLD, f"{NEW}, {OLD}", NEW)]
    old, new = before.sealed(SUBJECT, BODY), between.sealed(SUBJECT, BODY)

    assert between.fault(SUBJECT, old) == between.fault(SUBJECT, new) == after.fault(SUBJECT, new) == ""
    assert after.fault(SUBJECT, old)


def test_processes_that_share_the_audit_key_or_a_folder_understand_each_other(tmp_path: Path) -> None:
    """Nothing more need be set, and another installation's seals do not hold."""
    given = [{"data": tmp_path / "a"}, {"data": tmp_path / "a"}, {"data": tmp_path / "b"}]
    one, same, other = [seals.seals(settings.load(**some)) for some in given]
    here, there = [seals.seals(settings.load(data=tmp_path / name, audit_key=OLD)) for name in ("c", "d")]

    assert same.fault(SUBJECT, one.sealed(SUBJECT, BODY)) == there.fault(SUBJECT, here.sealed(SUBJECT, BODY)) == ""
    assert other.fault(SUBJECT, one.sealed(SUBJECT, BODY))
    assert here.fault(SUBJECT, one.sealed(SUBJECT, BODY))


def test_no_key_is_told() -> None:
    """Neither by what is printed, nor by what is refused."""
    given = settings.load(intent_key=NEW)
    made = seals.seals(given)

    assert NEW not in f"{given!r}{made!r}{made.fault(SUBJECT, SEALED)}"
    with pytest.raises(Misconfigured, match="32 characters") as refused:
        settings.load(intent_key=f"{NEW},hunter2")
    assert "hunter2" not in str(refused.value)


async def test_the_lies_of_the_campaign_are_seen_by_no_policy(tmp_path: Path) -> None:
    """So that it is the seal which the campaign tries: the policies that ship allow each of them."""
    model = planning.load(campaign.products(tmp_path))
    shipped = policy.read()
    rules = Policy(Embedded(bundles.bundle(shipped.policies, {**shipped.data, **attempts.data()})))
    for lie in [lie for lies in attempts.LIES.values() for lie in lies]:
        device = Device(model.sites[lie.tenant][lie.wish.site]["device"], lie.tenant, "127.0.0.1")
        plain = Intent("key", "acme", device.name, "internet-access", "key", {}, time() + 60, site=lie.wish.site)
        intent = replace(plain, values={"bandwidth": lie.wish.bandwidth}, **lie.said())
        about = question(intent, device)
        decision = await rules.decide(system(lie.tenant), "perform", about, intent.values, channel="adapter")

        assert decision.allow, (lie.words, decision.reasons)
