"""Rules for what customers are told, read again while workers run: in force at once, and nothing lost or told twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from scene import BERLIN, STORE_KINDS, Scene, in_memory, item, listening, playing
from structlog.testing import capture_logs
from test_letters_line import SECRET
from test_telling_line import HOLDS, governed, ordered, quiet

from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.mediation.telling import dispatch, rules
from convergedon.mediation.worker import Worker


async def reload(scene: Scene, folder: Path, text: str, worker: Worker | None = None) -> list[str]:
    """The words that are logged of it."""
    (folder / "notifications.yaml").write_text(text)
    with capture_logs() as logs:
        await (worker or scene.worker).reload()
    await scene.pump()
    return [one["words"] for one in logs if "words" in one]


async def test_what_waited_by_the_former_rules_is_told_by_the_new_ones(tmp_path: Path) -> None:
    async with ordered(tmp_path) as told:
        await told.say("fault")
        assert await told.said() == []
        await reload(told.scene, tmp_path, "default: {}\n")
        assert await told.said() == ["Affected"]
        await reload(told.scene, tmp_path, HOLDS)
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"]


async def test_what_quiet_hours_kept_back_is_told_when_there_are_none_any_more(tmp_path: Path) -> None:
    """Of orders, too, and once."""
    async with governed(tmp_path, quiet()) as told:
        await told.scene.ended(await told.scene.order(item(**BERLIN)))
        assert await told.scene.find("customerNotification") == []
        for _ in range(2):
            await reload(told.scene, tmp_path, HOLDS)

        assert len(await told.scene.find("customerNotification")) == 1


async def test_a_mistake_is_one_sentence_and_leaves_the_rules_in_force(tmp_path: Path) -> None:
    async with ordered(tmp_path) as told:
        await told.say("fault")
        (words,) = await reload(told.scene, tmp_path, "default:\n  updateInterval: soon\n")
        assert await told.said() == []
        await told.later(61)

        file = tmp_path / "notifications.yaml"
        assert words.startswith(f"{file}, line 2: default.updateInterval: ")
        assert words.endswith("; the rules that were in force still are")
        assert await told.said() == ["Affected"]


async def test_a_template_that_fails_leaves_the_rules_in_force(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "problem.txt").write_text("{{ nothing }}")
    (tmp_path / "words" / "problem.subject.txt").write_text("x")
    async with ordered(tmp_path) as told:
        (words,) = await reload(told.scene, tmp_path, "templates: words\n")

        assert "problem.txt, line 1: there is no variable nothing" in words


async def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    async with in_memory(tmp_path) as scene:
        await scene.worker.reload()

        assert scene.work.notifications is None


def channels(**urls: str) -> str:
    listed = ", ".join(f"{name}: {{kind: webhook, url: '{url}', secretFile: secret}}" for name, url in urls.items())
    heard = ", ".join(f"{{channel: {name}}}" for name in urls)
    return f"default: {{channels: [{heard}], updateInterval: 0}}\nchannels: {{{listed}}}\n"


async def test_what_is_being_sent_goes_to_its_end_and_the_next_goes_by_the_new_channel(tmp_path: Path) -> None:
    """Each once, while faults come and go all the time."""
    (tmp_path / "secret").write_text(SECRET)
    async with listening() as desk:
        given = tmp_path / "notifications.yaml"
        given.write_text(channels(desk=desk.url("old")))
        async with in_memory(tmp_path, notifications=given) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))

            async def told(number: int) -> None:
                async def there() -> bool:
                    found = await scene.find("dispatch")
                    return len(found) == number and all(one.body["state"] == "sent" for one in found)

                await scene.until(there)

            for number in range(3):
                reloading = asyncio.create_task(reload(scene, tmp_path, channels(desk=desk.url(f"new{number}"))))
                await scene.say("fault")
                await reloading
                await told(2 + 2 * number)
                await scene.say("clear")
                await told(3 + 2 * number)
            notes = [post["id"] for _, post in desk.got]

    assert len(notes) == len({*notes}) == 7
    assert {"old", "new2"} <= {who for who, _ in desk.got}


async def test_a_worker_whose_rules_are_older_leaves_what_it_does_not_know_to_others(tmp_path: Path) -> None:
    """A letter by a channel that only the other's rules name yet is not withdrawn."""
    (tmp_path / "secret").write_text(SECRET)
    async with listening() as desk:
        given = tmp_path / "notifications.yaml"
        given.write_text("default: {}\n")
        async with playing(MemoryStore(STORE_KINDS), MemoryBus(), tmp_path, notifications=given) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))
            given.write_text(channels(desk=desk.url("desk")))
            newer = replace(scene.work, notifications=rules.load(scene.work.settings))
            await scene.say("fault")
            await scene.settled()
            (record,) = await scene.find("customerNotification", **{"body.notificationType": "serviceAffected"})
            await dispatch.begin(newer, record, "northwind")
            (letter,) = await scene.find("dispatch")
            await scene.store.replace(letter.with_(facts={"due": 0.0}))  # whoever made it has died

            async def put_off() -> bool:
                (letter,) = await scene.find("dispatch")
                return letter.revision == 3

            await scene.until(put_off)
            (letter,) = await scene.find("dispatch")
            assert letter.body["state"] == "waiting"
            await scene.store.replace(letter.with_(facts={"due": letter.facts["begun"]}))
            await reload(scene, tmp_path, channels(desk=desk.url("desk")))

            async def sent() -> bool:
                (letter,) = await scene.find("dispatch")
                return bool(letter.body["state"] == "sent")

            await scene.until(sent)
            assert newer.notifications
            await newer.notifications.close()
