"""What is kept of telling goes when it is over and old, and nothing is told again, or never, because of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from scene import BERLIN, Listener, item, listening
from test_letters_line import SECRET
from test_telling_line import Told, governed, window

from convergedon.core.errors import Refused
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.mediation.known import Known
from convergedon.mediation.telling import cases, dispatch, keeping

DAY = 86_400


@asynccontextmanager
async def posted(folder: Path, rules: str = "default: {channels: [{channel: desk}]}\n") -> AsyncIterator[Told]:
    """A customer who is told at a web service, too, with a service in Berlin."""
    (folder / "secret").write_text(SECRET)
    async with listening() as desk:
        channels = f"channels: {{desk: {{kind: webhook, url: '{desk.url('desk')}', secretFile: secret}}}}\n"
        async with governed(folder, rules + channels) as told:
            told.desk = desk  # type: ignore[attr-defined]
            await told.scene.ended(await told.scene.order(item(**BERLIN)))
            yield told


async def sent(told: Told, number: int) -> None:
    desk: Listener = told.desk  # type: ignore[attr-defined]

    async def there() -> bool:
        found = await told.scene.find("dispatch", **{"body.state": "sent"})
        return len(found) == number == len(desk.got)

    await told.scene.until(there)


async def left(told: Told) -> dict[str, int]:
    return {kind: len(await told.scene.find(kind)) for kind in ("telling", "dispatch")}


async def heard_again(told: Told) -> None:
    """All that was said of whom problems affect, as when a person has parked messages tried again."""
    for message in [one for one in told.scene.bus.messages if "AffectedParty" in one.subject]:
        await cases.hear(told.scene.work, message)
    await told.due()


async def test_what_is_over_is_kept_for_as_long_as_the_setting_says(tmp_path: Path) -> None:
    """By several workers at the same time; what customers can ask for, and be asked by, stays."""
    async with posted(tmp_path) as told:
        await told.say("fault")
        await told.say("clear")
        await sent(told, 3)
        told.clock.ahead += 29 * DAY
        await keeping.forget(told.scene.work)
        assert await left(told) == {"telling": 1, "dispatch": 3}
        told.clock.ahead += 2 * DAY
        await asyncio.gather(*(keeping.forget(told.scene.work) for _ in range(3)))

        assert await left(told) == {"telling": 0, "dispatch": 0}
        assert [one.body["status"] for one in await told.scene.find("affectedParty")] == ["restored"]
        notes = await told.scene.find("customerNotification")
        assert len([one for one in notes if "surveyLink" in one.facts]) == 2


@pytest.mark.parametrize("by", ["another worker", "the same"])
async def test_what_was_made_and_not_handed_to_its_channels_is_handed_to_them(tmp_path: Path, by: str) -> None:
    """Whoever made it died between the two, or the store was away; its event comes again."""
    async with posted(tmp_path) as told:
        await told.say("fault")
        await told.say("clear")
        await sent(told, 3)
        (note,) = await told.scene.find("customerNotification", **{"body.notificationType": "serviceRestored"})
        (letter,) = await told.scene.find("dispatch", **{"facts.notification": note.id})
        await told.scene.store.delete(letter)
        await told.scene.pump()
        work = told.scene.work
        unknown = replace(work, known=Known())
        if by == "another worker":
            unknown = replace(unknown, published=lambda _: False)
        last = [one for one in told.scene.bus.messages if "AffectedPartyStateChange" in one.subject][-1]
        await cases.hear(unknown, last)

        (again,) = await told.scene.find("dispatch", **{"facts.notification": note.id})
        assert again.id == letter.id
        assert (await told.said()) == ["Affected", "Restored"]


async def test_what_is_gone_is_not_told_again(tmp_path: Path) -> None:
    """Nor what its customer had erased, and no letter of it is written again."""
    async with posted(tmp_path) as told:
        await told.say("fault")
        await told.say("clear")
        await sent(told, 3)
        before = await told.said()
        told.clock.ahead += 31 * DAY
        await keeping.forget(told.scene.work)
        await heard_again(told)
        (order, *_) = await told.scene.find("customerNotification", **{"body.notificationType": "orderCompleted"})
        await dispatch.begin(told.scene.work, order, "northwind")
        assert (await told.said(), (await left(told))["dispatch"]) == (before, 0)
        for note in await told.scene.find("customerNotification"):
            await told.scene.resources.delete(CUSTOMER_NOTIFICATION, note)
        await heard_again(told)

        assert await told.said() == []
        assert await left(told) == {"telling": 0, "dispatch": 0}


async def test_what_an_earlier_build_left_goes_as_well(tmp_path: Path) -> None:
    """It does not say since when it is over; what is not over stays, however old it is."""
    async with posted(tmp_path) as told:
        await told.say("fault")
        await told.say("clear")
        await sent(told, 3)
        await told.say("fault")
        await sent(told, 4)
        for kind in ("telling", "dispatch"):
            for record in await told.scene.find(kind):
                facts = {name: value for name, value in record.facts.items() if name not in ("over", "debts", "saying")}
                await told.scene.store.replace(replace(record, facts=facts))
        told.clock.ahead += 29 * DAY
        await told.scene.worker.look_after()
        assert await left(told) == {"telling": 2, "dispatch": 4}
        told.clock.ahead += 2 * DAY
        await told.scene.worker.look_after()
        assert await left(told) == {"telling": 1, "dispatch": 0}
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"] * 2
        assert [one for one in await told.scene.find("telling") if "over" not in one.facts] == []


async def test_an_open_all_clear_is_kept_however_old_it_is(tmp_path: Path) -> None:
    async with posted(tmp_path) as told:
        await told.say("fault")
        await sent(told, 2)
        told.clock.ahead += 400 * DAY
        await keeping.forget(told.scene.work)
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"]


async def test_what_waits_to_be_summed_up_is_kept_until_it_is(tmp_path: Path) -> None:
    async with governed(tmp_path, window(-10, 60 * DAY)) as told:
        await told.scene.ended(await told.scene.order(item(**BERLIN)))
        await told.say("fault")
        await told.later(200)
        await told.say("clear")
        told.clock.ahead += 40 * DAY
        await keeping.forget(told.scene.work)
        await told.later(21 * DAY)
        await told.later(100)
        assert await told.said() == ["Summary"]
        await told.later(31 * DAY)
        await keeping.forget(told.scene.work)
        await heard_again(told)

        assert await told.said() == ["Summary"]
        assert (await left(told))["telling"] == 0


async def test_a_letter_that_was_parked_and_is_gone_says_so_when_it_is_tried_again(tmp_path: Path) -> None:
    async with posted(tmp_path) as told:
        told.desk.answers["desk"] = 410  # type: ignore[attr-defined]
        await told.say("fault")

        async def given_up() -> bool:
            await told.scene.pump()
            return bool(told.scene.bus.parked_)

        await told.scene.until(given_up)
        told.clock.ahead += 31 * DAY
        await keeping.forget(told.scene.work)
        (message, _), *_ = told.scene.bus.parked_
        with pytest.raises(Refused, match="too long ago for it to be sent again"):
            await dispatch.hand_over(told.scene.work, message)
