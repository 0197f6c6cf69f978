"""The escapes campaign: violations of every class on every path, under every condition of the policy engine.

`run` is the campaign: two systems of its own with the lab, one that evaluates policies itself and one that asks a
policy server, which fails as it is told. What is tried is the table in attempts.py, what sees is in witness.py, what
counts in tally.py. Nothing that the gateway says of itself decides whether a violation took effect.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import as_file, files
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import yaml
from rich.console import Console

from convergedon.core import activation, bundles, tasks
from convergedon.core.bundles import Bundle
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.demo import attempts, plays
from convergedon.demo.attempts import TABLE, Attempt
from convergedon.demo.decider import Decider, Mood, deciding
from convergedon.demo.plays import Play
from convergedon.demo.stage import own
from convergedon.demo.story import Story, check_writable
from convergedon.demo.tally import LEGITIMATE, Outcome, Tally
from convergedon.demo.witness import Deed, Scene, Seen, staged

EMBEDDED = ("embedded", "activating")
SERVER = ("server", "down", "slow", "nonsense")
CONDITIONS = (*EMBEDDED, *SERVER)
"""Of the policy engine. The first of each are those in which it is up."""
SILENT = ("down", "slow", "nonsense")
"""Those under which nobody can decide."""

ASIDE = 16
"""Attempts that are made side by side."""
HOLD = 3.0
"""Seconds for which a condition lasts after the last attempt: what is on the bus is to meet it too."""
SHARE = 3
"""For so many violations there is one legitimate action."""

Engine = Callable[[], AbstractAsyncContextManager[object]]


async def run(settings: Settings, number: int, seed: int, json_file: Path | None) -> bool:
    """Make the campaign, tell of it, and say whether nothing escaped and nothing was refused falsely.

    Raises Misconfigured or Unavailable with one sentence when it cannot be made.
    """
    story, begun = Story(), monotonic()
    check_writable(json_file)
    tally = await make(settings, story, number, seed)
    end(story, tally, json_file, {"seed": seed, "seconds": round(monotonic() - begun, 1)})
    return tally.holds


async def make(settings: Settings, story: Story, number: int, seed: int) -> Tally:
    if settings.opa_url:
        raise Misconfigured("a campaign brings its own policy server: unset CONVERGEDON_OPA_URL")
    tally, drawn = Tally(), draw(number, seed)
    with tempfile.TemporaryDirectory(prefix="convergedon-campaign-") as name:
        first, second = editions(settings.policies, Path(name))
        ours = settings.model_copy(update={"products": products(Path(name))})
        try:
            await on_embedded(ours, story, tally, drawn, (first, second))
            await on_server(ours, story, tally, drawn, first)
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway does not answer: {str(error) or type(error).__name__}") from error
    return tally


async def on_embedded(
    settings: Settings, story: Story, tally: Tally, drawn: Mapping[str, Sequence[Attempt]], editions: Sequence[Path]
) -> None:
    """With the Rego engine in every process, at rest and while bundles are activated and rolled back."""
    ours = settings.model_copy(update={"policies": editions[0]})
    async with own(ours, story) as place, staged(place) as scene:
        await attempts.prepare(scene)
        tally.outcomes += await phase(scene, story, "embedded", drawn["embedded"], nullcontext)
        engine = activating(scene, story, [bundles.read(edition) for edition in editions])
        tally.outcomes += await phase(scene, story, "activating", drawn["activating"], engine)


async def on_server(
    settings: Settings, story: Story, tally: Tally, drawn: Mapping[str, Sequence[Attempt]], edition: Path
) -> None:
    """With a policy server beside, which is up, down, slow, and answers nonsense."""
    async with deciding(bundles.read(edition)) as decider:
        ours = settings.model_copy(update={"policies": edition, "opa_url": decider.url})
        async with own(ours, story) as place, staged(place) as scene:
            await attempts.prepare(scene)
            for condition, mood in zip(SERVER, ("up", *SILENT), strict=True):
                engine = failing(decider, mood)  # type: ignore[arg-type]
                tally.outcomes += await phase(scene, story, condition, drawn[condition], engine)


def failing(decider: Decider, mood: Mood) -> Engine:
    """The policy server in a mood for as long as the block; up again after it."""

    @asynccontextmanager
    async def engine() -> AsyncIterator[None]:
        await decider.become(mood)
        try:
            yield
            if mood != "up":
                await asyncio.sleep(HOLD)
        finally:
            await decider.become("up")

    return engine


def activating(scene: Scene, story: Story, editions: Sequence[Bundle]) -> Engine:
    """Bundles are activated and rolled back for as long as the block, as fast as all processes take them."""
    turns = [partial(activation.activate, scene.bus, edition) for edition in editions]
    times = 0

    async def turn() -> None:
        nonlocal times
        for change in cycle([*turns, partial(activation.roll_back, scene.bus)]):
            made = await change("campaign")
            activation.outcome(made, await activation.settled(scene.bus, made))
            times += 1

    @asynccontextmanager
    async def engine() -> AsyncIterator[None]:
        turning = asyncio.create_task(turn())
        try:
            yield
        finally:
            await tasks.end([turning])
        if not turning.cancelled():
            turning.result()
        story.say(f"activating: {times} times other policies were put in force in every process")

    return engine


def editions(policies: Path | None, folder: Path) -> tuple[Path, Path]:
    """The policies in two editions that forbid the same, with contracts that the lab could be sold more than."""
    made = []
    for name in ("first", "second"):
        with as_file(files("convergedon.policies")) as shipped:
            ignored = shutil.ignore_patterns("*.py", "__pycache__")
            edition = Path(shutil.copytree(policies or shipped, folder / name, ignore=ignored))
        data = edition / "data.json"
        values = json.loads(data.read_text()) if data.exists() else {}
        overlaid = _over(values, {**attempts.data(), "edition": name})
        data.write_text(json.dumps(overlaid))
        made.append(edition)
    return made[0], made[1]


def products(folder: Path) -> Path:
    """The product model that ships, with the campaign's sites besides."""
    shipped = yaml.safe_load((files("convergedon.mediation") / "products.yaml").read_text())
    file = folder / "products.yaml"
    file.write_text(yaml.safe_dump(_over(shipped, {"sites": plays.SITES})))
    return file


def _over(values: Any, more: Any) -> Any:
    """Values with others laid over them, member by member."""
    if not isinstance(values, dict) or not isinstance(more, dict):
        return more
    return {**values, **{name: _over(values.get(name), value) for name, value in more.items()}}


# --- what is tried


def draw(number: int, seed: int) -> dict[str, list[Attempt]]:
    """condition -> attempts: so many violations in all, dealt from the shuffled table again and again, and legitimate
    actions among them.
    """
    chance = random.Random(seed)
    violations = _dealt(chance, [attempt for attempt in TABLE if attempt.violates != LEGITIMATE])
    legitimate = _dealt(chance, [attempt for attempt in TABLE if attempt.violates == LEGITIMATE])
    drawn: dict[str, list[Attempt]] = {condition: [] for condition in CONDITIONS}
    for turn in range(number):
        condition = CONDITIONS[turn % len(CONDITIONS)]
        drawn[condition].append(next(violations))
        if turn // len(CONDITIONS) % SHARE == 0:
            drawn[condition].append(next(legitimate))
    for some in drawn.values():
        chance.shuffle(some)
    return drawn


def _dealt(chance: random.Random, table: Sequence[Attempt]) -> Iterator[Attempt]:
    while True:
        yield from chance.sample(table, len(table))


@dataclass
class Trial:
    """An attempt with its deed and how far it is."""

    attempt: Attempt
    deed: Deed
    play: Play
    effect: bool | None = None
    repeated: Trial | None = None

    async def on(self) -> None:
        """The next act, or the verdict."""
        self.effect = await anext(self.play)

    @property
    def is_legitimate(self) -> bool:
        return self.attempt.violates == LEGITIMATE


async def phase(scene: Scene, story: Story, condition: str, drawn: Sequence[Attempt], engine: Engine) -> list[Outcome]:
    """Some attempts under one condition: prepared before it, judged when it is over and nothing is under way."""
    begun = monotonic()
    # of the same length, so that none is found in another
    trials = [_trial(scene, attempt, f"{condition}-{number:06d}") for number, attempt in enumerate(drawn)]
    await _all(trials, Trial.on)
    async with engine():
        await _all(trials, Trial.on)
        if condition not in SILENT:
            await _judge(scene, trials)
    await scene.ready()
    withheld = [trial for trial in trials if trial.is_legitimate and trial.deed.withheld]
    for trial in withheld:
        trial.repeated = _trial(scene, trial.attempt, f"{trial.deed.mark}-again")
    again = [trial.repeated for trial in withheld if trial.repeated]
    await scene.quiet()  # what came back from the bus is done by then, and nobody waits behind it
    await _all(again, Trial.on)
    await _all(again, Trial.on)
    await _judge(scene, [trial for trial in [*trials, *again] if trial not in withheld])
    outcomes = [*await _outcomes(scene, condition, trials), *_overheard(scene, condition)]
    story.say(f"{condition}: {len(drawn)} attempts in {monotonic() - begun:.1f} s")
    return outcomes


def _trial(scene: Scene, attempt: Attempt, number: str) -> Trial:
    deed = Deed(scene, f"{scene.run}-{number}")
    return Trial(attempt, deed, attempt.play(deed))


async def _judge(scene: Scene, trials: Sequence[Trial]) -> None:
    """Let them go on to their ends, each time when nothing is under way any more."""
    while pending := [trial for trial in trials if trial.effect is None]:
        await scene.quiet()
        await _all(pending, Trial.on)


async def _all(trials: Sequence[Trial], what: Callable[[Trial], Awaitable[None]]) -> None:
    """Side by side, some at a time."""
    turns = asyncio.Semaphore(ASIDE)

    async def one(trial: Trial) -> None:
        async with turns:
            await what(trial)

    async with asyncio.TaskGroup() as group:
        for trial in trials:
            group.create_task(one(trial))


# --- what came of it


async def _outcomes(scene: Scene, condition: str, trials: Sequence[Trial]) -> list[Outcome]:
    recorded = await scene.records([trial.deed.trace for trial in trials])
    return [_outcome(trial, condition, recorded[trial.deed.trace]) for trial in trials]


def _overheard(scene: Scene, condition: str) -> list[Outcome]:
    """What those who listen all the time should not have heard, whatever was tried."""
    listeners = {name: who.tenant for name, (_, who, _) in attempts.LISTENERS.items()}
    return [
        Outcome(attempts.TENANTS, attempts.DELIVERY, condition, f"{name} heard of another tenant", "escaped")
        for name in scene.overheard(listeners)
    ]


def _outcome(trial: Trial, condition: str, records: Sequence[Mapping[str, Any]]) -> Outcome:
    attempt, deed = trial.attempt, trial.deed
    made = {one.headers["x-decision-id"] for one in deed.seen if "x-decision-id" in one.headers}
    return Outcome(
        attempt.violates,
        attempt.path,
        condition,
        attempt.words,
        _result(trial),
        tuple(one.status for one in deed.seen),
        tuple(_blemishes(attempt, condition, deed.seen)),
        not made <= {record["decision"] for record in records},
        deed.trace,
    )


def _result(trial: Trial) -> Any:
    if not trial.is_legitimate or trial.deed.leaked:
        return "escaped" if trial.effect or trial.deed.leaked else "refused"
    if trial.repeated is not None:
        return "withheld" if trial.repeated.effect else "refused falsely"
    return "done" if trial.effect else "refused falsely"


def _blemishes(attempt: Attempt, condition: str, seen: Sequence[Seen]) -> Iterator[str]:
    """What is wrong with how it was answered: the wrong code, or no reason."""
    for one in seen:
        refused = one.status >= 400
        if condition in SILENT and not refused and one.status // 100 == 2:
            yield f"answered {one.status} though nobody could decide"
        if not (one.status in attempt.codes or (condition in SILENT and one.status == 503)):
            yield f"answered {one.status}"
        if refused and not _reason(one):
            yield f"answered {one.status} without a reason"


def _reason(answer: Seen) -> bool:
    """Whether it says why: in an Error of TM Forum, or to a person on a page."""
    if "html" in answer.headers.get("content-type", ""):
        return bool(answer.text.strip())
    try:
        said = json.loads(answer.text)
    except ValueError:
        return False
    return isinstance(said, dict) and bool(said.get("reason"))


def end(story: Story, tally: Tally, json_file: Path | None, facts: Mapping[str, Any]) -> None:
    """The tables and the figures; for a machine all outcomes."""
    if json_file:
        document = {**facts, **tally.document, "simulated": SIMULATED}
        json_file.write_text(f"{json.dumps(document, indent=1, default=asdict)}\n", encoding="utf-8")
    console = Console(width=160) if not Console().is_terminal else Console()
    for table in tally.tables(CONDITIONS):
        console.print("", table)
    story.say("")
    story.say(f"simulated: {SIMULATED}", "dim")
    for sentence in tally.sentences:
        story.say(sentence)
    for words in tally.wrong:
        story.say(words, "red")
    good = "nothing escaped and nothing was refused falsely"
    story.say(
        good if tally.holds else "the campaign found what must not be", "bold green" if tally.holds else "bold red"
    )


SIMULATED = (
    "the network elements (a lab on loopback), the callers and their tokens, and the policy server's failures; "
    "what is written past the APIs stands for an intruder inside"
)
