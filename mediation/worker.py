"""The worker: takes what happened from the bus, partition by partition, and runs the steps that FLOWS names for it.

Before each step the policy is asked, in the name of the tenant that it is for. A step that is refused is parked with
the reasons; each one that has run, or may not, leaves an audit record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import structlog

from convergedon.core import metrics, parking, trace
from convergedon.core.bus import PARTITIONS, Consumer, Message
from convergedon.core.errors import Stale, Unavailable
from convergedon.core.policy import Decision, system
from convergedon.core.tasks import end
from convergedon.mediation import cancellation, flapping, inventory, metering, ordering
from convergedon.mediation.delivery import Delivery
from convergedon.mediation.flows import FLOWS, IDLE, TOGETHER, Step, name_of, step_name
from convergedon.mediation.telling import cases, keeping, renewal
from convergedon.mediation.telling.dispatch import Sending
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import remediation

log = structlog.get_logger()

EVERY = 15.0
"""Seconds between two looks at what is overdue."""
CLOSES = 1.0
"""And at which intervals of usage are over, or the time of a workflow, a flapping alarm or a message has come."""


class Worker:
    """Any number of these may run: of one partition one message is under way at a time, whoever takes it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._delivery = Delivery(work, self._parked)
        self._sending = Sending(work)
        self._reloading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._adopted = False

    async def start(self) -> None:
        await inventory.adopt(self._work.resources)
        await self._delivery.attend()
        horizon = self._work.settings.retry_horizon
        for number in range(PARTITIONS):
            for name, subject, handler in (
                (f"flow-events-{number}", f"event.{number}.>", self._flow),
                (f"flow-network-{number}", f"network.{number}.>", self._flow),
                (f"flow-tasks-{number}", f"task.{number}.>", self._flow),
                (f"fan-out-{number}", f"event.{number}.>", partial(self._delivery.fan_out, self._work)),
            ):
                consumer = Consumer(name, subject, handler, horizon, parked=self._parked, light=True)
                self._work.bus.consume(consumer)

        self._sending.start()
        self._tasks = [
            asyncio.create_task(self._again(EVERY, self.look_after)),
            asyncio.create_task(self._again(CLOSES, self.close_intervals)),
            asyncio.create_task(self._again(CLOSES, self.attend_workflows)),
            asyncio.create_task(self._again(CLOSES, self.attend_flapping)),
            asyncio.create_task(self._again(CLOSES, self.tell_in_time)),
        ]

    async def stop(self) -> None:
        await end(self._tasks)
        await self._sending.stop()
        await self._delivery.stop()

    async def reload(self) -> None:
        """Read the rules for notifications again, and go on by them unless something is wrong with them."""
        async with self._reloading:
            await renewal.renew(self._work, self._sending)

    async def _again(self, pause: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await look()
            except Unavailable as error:
                log.info("what is overdue waits", reason=str(error))
            except Exception:
                log.exception("what is overdue waits")

    async def look_after(self) -> None:
        """What no message tells of: time that has run out, and listeners that have gone."""
        await ordering.end_overdue(self._work)
        await cancellation.take_up_due(self._work)
        await self._delivery.attend()
        await parking.watch(self._work.bus, self._work.settings.parked_bytes)
        if not self._adopted:
            await keeping.adopt(self._work)
            self._adopted = True
        await keeping.forget(self._work)

    async def close_intervals(self) -> None:
        await metering.ask(self._work)

    async def attend_workflows(self) -> None:
        await remediation.look_after(self._work)

    async def attend_flapping(self) -> None:
        await flapping.release(self._work)

    async def tell_in_time(self) -> None:
        await cases.look_after(self._work)

    async def _flow(self, message: Message) -> None:
        if "observations" in message.body:
            await self._each(message)
            return
        for step in FLOWS.get(name_of(message), ()):
            if not (step in IDLE and IDLE[step](self._work, message)):
                await self._step(step, message)

    async def _each(self, message: Message) -> None:
        """Observations that came in one message, in their order: together what can be, else one after the other."""
        for several in runs(parts(message)):
            if len(several) < 2 or not await self._together(several):
                for part in several:
                    await self._part(message, part)

    async def _part(self, message: Message, part: Message) -> None:
        """One of them, in the trace that it began.

        One that fails for good is put on the bus again by itself, to be parked alone; the others go on.
        """
        try:
            with trace.span("observation", part.headers):
                await self._flow(part)
        except (Unavailable, Stale):
            raise
        except Exception as error:
            log.warning("observation taken out of its message", id=part.id, reason=str(error) or repr(error))
            await self._work.bus.publish(message.subject, part.body, f"alone:{part.id}", part.headers)

    async def _together(self, several: Sequence[Message]) -> bool:
        """Run a step for all of these, if it may be run for each. Says no where one of them has to be taken alone."""
        (step,) = FLOWS[name_of(several[0])]
        asked = {_same(part): part for part in several}
        decisions = {which: await self._decide(step, part) for which, part in asked.items()}
        if not all(decision.allow for decision in decisions.values()):
            return False
        begun = perf_counter()
        try:
            with metrics.STEP_SECONDS.labels(step.__name__).time():
                await TOGETHER[step](self._work, several)
        except (Unavailable, Stale):
            raise
        except Exception as error:
            log.warning("observations are taken one by one", step=step_name(step), reason=str(error) or repr(error))
            return False
        took = {"seconds": round(perf_counter() - begun, 6), "together": len(several)}
        for which, part in asked.items():
            number = sum(_same(one) == which for one in several)
            self._record(step, concerned(part), "done", decisions[which], observations=number, **took)
        return True

    async def _decide(self, step: Step, message: Message) -> Decision:
        about = concerned(message)
        question = {"kind": "step", "step": step_name(step), **about}
        tenant = _tenant_of_subject(message) or about.get("tenant", "")
        return await self._work.policy.decide(system(tenant), "run", question, channel="flow")

    async def _step(self, step: Step, message: Message) -> None:
        """Run one step if the policy lets it. Raises Forbidden; what comes back later leaves no record this time."""
        about, decision = concerned(message), await self._decide(step, message)
        if not decision.allow:
            self._record(step, about, "refused", decision, reasons=list(decision.reasons))
            decision.require()
        begun = perf_counter()
        try:
            with metrics.STEP_SECONDS.labels(step.__name__).time():
                await step(self._work, message)
        except (Unavailable, Stale):
            raise
        except Exception as error:
            self._record(step, about, "failed", decision, reason=str(error) or repr(error))
            raise
        self._record(step, about, "done", decision, seconds=round(perf_counter() - begun, 6))

    def _record(self, step: Step, about: Mapping[str, Any], outcome: str, decision: Decision, **detail: Any) -> None:
        what = "step.refused" if outcome == "refused" else "step.ran"
        who = (about.get("owner") or {}).get("id", "convergedon")
        on, detail = f"{about['of']}/{about['record']}", {"step": step_name(step), **detail}
        self._work.audit.record(what, about.get("tenant", ""), who, on, outcome, decision, **detail)

    def _parked(self, message: Message, reason: str) -> None:
        """A parked message waits for a person: it counts as a hand-off."""
        tenant = concerned(message).get("tenant", "")
        self._work.audit.record("message.parked", tenant, "convergedon", message.subject, "failed", reason=reason)


def parts(message: Message) -> Iterator[Message]:
    """The observations of a message of many, each as a message of its own that stands at its place in it."""
    for number, each in enumerate(message.body["observations"]):
        headers, body = {"traceparent": each["traceparent"]}, {"observation": each["observation"]}
        place = replace(message.position, part=number)
        yield replace(message, id=each["observation"]["id"], body=body, headers=headers, position=place)


def runs(several: Iterable[Message]) -> Iterator[Sequence[Message]]:
    """Those that follow each other and have the same step, which is done for many at once; any other by itself."""
    for steps, run in groupby(several, lambda part: FLOWS.get(name_of(part), ())):
        found = [*run]
        yield from [found] if len(steps) == 1 and steps[0] in TOGETHER else [[one] for one in found]


def _same(part: Message) -> str:
    """What parts have in common of which the policy is asked the same."""
    return str(concerned(part))


PASSED_ON = ("tenant", "owner", "purpose", "workflow", "approval")
"""What a message says that policies judge a step by."""


def concerned(message: Message) -> dict[str, Any]:
    """What a message is about, for the policy and the audit record: of which kind, which one, whose and why."""
    body = message.body
    if "observation" in body:
        seen = body["observation"]
        return {"of": "observation", "record": seen["device"], "tenant": seen["tenant"]}
    about = body.get("about") or body
    said = {name: about[name] for name in PASSED_ON if about.get(name)}
    return {"of": about.get("kind", ""), "record": about.get("id", ""), **said}


def _tenant_of_subject(message: Message) -> str:
    """The tenant that a message's subject names, where it names one: what is in it must be that tenant's too."""
    parts = message.subject.split(".")
    place = {"event": 2, "task": 2}.get(parts[0])
    return unquote(parts[place]) if place and len(parts) > place else ""
