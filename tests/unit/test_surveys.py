"""The link of a survey is a credential for one answer, and the figure counts answers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core import settings
from convergedon.core.errors import NotFound
from convergedon.core.store import Record
from convergedon.handlers.surveys import Invitation, Links, link, nps
from convergedon.mediation.privacy import MASKS, masked

KEY, OLD = b"k" * 32, b"o" * 32
ONE = Invitation("acme", "northwind", "productOrder", "51c0", int(time()) + 86_400)
WORDS = st.text(min_size=1, max_size=40)


def test_what_was_signed_is_read_back() -> None:
    assert Links([KEY]).read(Links([KEY]).write(ONE)) == ONE


@given(WORDS, WORDS, WORDS)
def test_a_link_says_the_same_to_whoever_reads_it_and_no_mask_takes_a_part_of_it(
    tenant: str, customer: str, id: str
) -> None:
    invitation = replace(ONE, tenant=tenant, customer=customer, id=id)
    url = f"https://gateway.example/survey/{Links([KEY]).write(invitation)}"

    assert Links([KEY]).read(url.rpartition("/")[2]) == invitation
    assert masked(url, MASKS) == url


@given(st.data())
def test_whatever_is_changed_in_a_link_it_leads_nowhere(data: st.DataObject) -> None:
    token = Links([KEY]).write(ONE)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda one: one != token[place]))

    with pytest.raises(NotFound):
        Links([KEY]).read(token[:place] + letter + token[place + 1 :])


@given(st.text(max_size=300))
def test_what_nobody_signed_leads_nowhere(token: str) -> None:
    with pytest.raises(NotFound):
        Links([KEY]).read(token)


def test_a_link_of_another_key_leads_nowhere_and_one_of_the_key_before_does() -> None:
    token = Links([OLD]).write(ONE)
    with pytest.raises(NotFound):
        Links([KEY]).read(token)

    assert Links([KEY, OLD]).read(token) == ONE


def test_a_link_expires_and_says_no_more_then_than_a_forged_one() -> None:
    links = Links([KEY])
    with pytest.raises(NotFound) as late:
        links.read(links.write(replace(ONE, until=int(time()) - 1)))
    with pytest.raises(NotFound) as forged:
        links.read("a.b")

    assert str(late.value) == str(forged.value)


def test_keys_are_not_shown() -> None:
    assert KEY.decode() not in repr(Links([KEY]))


def test_it_is_asked_after_an_all_clear_and_a_completed_order_alone(tmp_path: Path) -> None:
    chosen = settings.load(data=tmp_path, public_url="https://gateway.example")
    kinds = {"productOrder": "orderCompleted", "affectedParty": "serviceRestored"}
    asked = {
        (kind, type_): link(chosen, Record(kind, "1", "acme", {}), "northwind", type_)
        for kind in (*kinds, "telling")
        for type_ in ("orderCompleted", "orderFailed", "serviceAffected", "serviceRestored", "serviceSummary")
    }

    assert {pair for pair, said in asked.items() if said} == {*kinds.items()}
    assert all(said.startswith("https://gateway.example/survey/") for said in asked.values() if said)
    none = settings.load(data=tmp_path, survey_days=0)
    assert link(none, Record("productOrder", "1", "acme", {}), "northwind", "orderCompleted") == ""


@pytest.mark.parametrize(
    ("scores", "figure"),
    [([], None), ([10], 100), ([0], -100), ([9, 8, 7, 6], 0), ([10, 10, 6], 33), ([7, 8], 0), ([6, 6, 9], -33)],
)
def test_promoters_less_detractors_in_per_cent_and_nothing_of_nothing(scores: list[int], figure: int | None) -> None:
    assert nps(scores) == figure


@given(st.lists(st.integers(0, 10), min_size=1), st.randoms())
def test_the_figure_is_between_its_bounds_whatever_the_order(scores: list[int], chance: object) -> None:
    before = nps(scores)
    chance.shuffle(scores)  # type: ignore[attr-defined]

    assert before == nps(scores)
    assert before is not None
    assert -100 <= before <= 100
