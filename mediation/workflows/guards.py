"""What is told of an incident and its device before a workflow may begin there, and what the policy makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import Any

from convergedon.core.errors import Invalid
from convergedon.core.policy import Decision, Policy, system
from convergedon.core.store import Record, Store
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.remediation import WORKFLOW_CONTROL, WORKFLOW_RUN
from convergedon.handlers.resource import Resources, now
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import inventory, parts
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import controls, past
from convergedon.mediation.workflows.definitions import Definition
from convergedon.mediation.workflows.expressions import evaluate
from convergedon.mediation.workflows.past import Past, instant
from convergedon.mediation.workflows.running import WAITS

NOT_BEGUN = ("refused", WAITS)


@dataclass(frozen=True)
class Judged:
    """``given`` is what the run would be given, ``figures`` what the policy was told."""

    given: Mapping[str, Any]
    figures: Mapping[str, int]
    decision: Decision

    @property
    def refused(self) -> str:
        """Why it may not begin; empty where it may."""
        return "" if self.decision.allow else "; ".join(self.decision.reasons)


async def judged(
    work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], waited: bool = False
) -> Judged:
    """Ask the policy whether a workflow may begin. One that has waited for its turn waits behind nobody any more."""
    before = await _past(work.store, alarm, given["target"]["device"], time() - past.A_DAY)
    given = {**given, "earlier": before.earlier(definition.name, given["target"]["object"])}
    figures = {**before.figures(definition.name, given, time()), **({"waiting": 0} if waited else {})}
    return Judged(given, figures, await _may_begin(work, alarm, definition, given, figures))


async def incident(resources: Resources, alarm: Record) -> dict[str, Any]:
    """What a workflow is given: the alarm, where it is, the services that it touches, and what was confirmed there.

    What was confirmed is that of every service that stands there: a device that restarted may have lost them all,
    though a warning touches none.
    """
    place, _, part = str(alarm.body["alarmedObject"]["id"]).partition("/")
    device = str(alarm.body.get("sourceSystemId") or place)
    ids = [service["id"] for service in alarm.body.get("affectedService") or []]
    services = await resources.store.find(SERVICE.name, {"id": {"$in": ids}}) if ids else []
    found = sorted((one for one in services if one.tenant == alarm.tenant), key=lambda one: one.id)
    here = {"tenant": alarm.tenant, "body.supportingResource.id": parts.id_of(alarm.tenant, parts.place(device, part))}
    standing = await resources.store.find(SERVICE.name, here, sort=[("id", 1)])
    return {
        "alarm": resources.present(alarm),
        "target": {"device": device, "object": part},
        "services": [{"id": one.id, "name": one.body.get("name", "")} for one in found],
        "confirmed": [
            {**wanted, "instance": one.id}
            for one in standing
            if one.body["state"] == "active"
            for wanted in one.facts.get("present", {}).get("wanted", [])
            if wanted["device"] == device and wanted["values"] is not None
        ],
    }


def triggered(definition: Definition, given: Mapping[str, Any]) -> bool:
    """Whether a definition is for this. One whose condition cannot be answered is not."""
    known = {"workflow": {"definition": definition.document}}
    if "data" not in definition.trigger:
        return True
    with suppress(Invalid):
        return bool(evaluate(definition.trigger["data"], given, known))
    return False


async def _past(store: Store, alarm: Record, device: str, since: float) -> Past:
    """What the guards go by: the runs on a device that were begun since then, whosever they are, as it is one device;
    when this alarm was raised; how many runs of its tenant are under way, and how many wait for the device.
    """
    found = await store.find(WORKFLOW_RUN.name, {"body.target": device})
    begun = [one for one in found if one.body["state"] not in NOT_BEGUN and instant(one.body["startedAt"]) >= since]
    waiting = sum(run.body["state"] == WAITS for run in found)
    alarms = await store.find(ALARM.name, {"tenant": alarm.tenant, "facts.key": alarm.facts.get("key", "")})
    raised = [str(one.body["alarmRaisedTime"]) for one in alarms if "alarmRaisedTime" in one.body]
    under_way = {"tenant": alarm.tenant, "body.state": {"$in": ["running", "stopped", "compensating"]}}
    return Past([past.run_of(run) for run in begun], raised, await store.count(WORKFLOW_RUN.name, under_way), waiting)


async def recorded(resources: Resources, alarm: Record) -> dict[str, Any]:
    """An incident, and what happened before it on its device, as a rehearsal reads it.

    Where workflows were to begin for it, that is kept too: what was decided then is decided in the rehearsal.
    """
    store, given = resources.store, await incident(resources, alarm)
    device = given["target"]["device"]
    runs = await store.find(WORKFLOW_RUN.name, {"tenant": alarm.tenant, "body.alarm.id": alarm.id})
    ordered = sorted(runs, key=lambda run: str(run.body["startedAt"]))
    decided = {
        run.body["workflow"]["name"]: past.Decided(
            run.body["startedAt"], run.body["guard"]["underWay"], run.body["guard"].get("waiting", 0)
        )
        for run in ordered
    }
    first = min((instant(one.at) for one in decided.values()), default=time())
    before = await _past(store, alarm, device, first - past.A_DAY)
    known, pressed = await _is_known(store, alarm, device), await _pressed(store, alarm.tenant, first)
    earlier = past.Recorded(now(), before, known, decided, pressed)
    return {"tenant": alarm.tenant, "incident": given, "earlier": earlier.written}


async def _pressed(store: Store, tenant: str, since: float) -> list[past.Press]:
    """When workflows were stopped and let go on: what counted then, and what was pressed since."""
    found: list[past.Press] = []
    for whose in (controls.EVERYONE, tenant):
        for record in await store.find(WORKFLOW_CONTROL.name, {"tenant": whose}, [("body.time", -1)]):
            body = record.body
            found.append(past.Press(body["time"], body["state"], body.get("reason", ""), whose == controls.EVERYONE))
            if instant(body["time"]) <= since:
                break
    return found


async def _may_begin(
    work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], figures: Mapping[str, int]
) -> Decision:
    """Ask the policy, with what it needs for the guards."""
    device = given["target"]["device"]
    known = await _is_known(work.store, alarm, device)
    stopped = await controls.stopped(work.store, alarm.tenant)
    return await may_begin(work.policy, alarm.tenant, definition, device, known=known, stopped=stopped, **figures)


async def may_begin(policy: Policy, tenant: str, definition: Definition, device: str, **said: Any) -> Decision:
    """Ask whether a workflow may begin on a device."""
    about = {"kind": WORKFLOW_RUN.name, "tenant": tenant, "workflow": definition.name, "device": device}
    return await policy.decide(
        system(tenant), "remediate", {**about, "changes": definition.changes, **said}, channel="flow"
    )


async def _is_known(store: Store, alarm: Record, device: str) -> bool:
    """Whether the device has to do with the tenant: it told of this itself, or a service stands on it.

    An alarm that a client made may name any device, and the lock on that is one for all tenants.
    """
    return "key" in alarm.facts or bool(await inventory.on(store, alarm.tenant, device, ""))
