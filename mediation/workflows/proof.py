"""Whether a repair has helped: what the network shows around its device, before the first change and at the proof.

A repair may do what it was asked and break something else: what is out of order on the device, and which of the
services that stand there are out of service by whatever alarm, is noted before a run changes anything and looked at
again with each proof. The policy says whether that is worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convergedon.handlers.alarms import ALARM
from convergedon.mediation import inventory
from convergedon.mediation.work import Work
from convergedon.mediation.workflows.course import Error, Told, error
from convergedon.mediation.workflows.definitions import covers, place

GRAVE = ("critical", "major")
OPEN = ("raised", "updated")
Sight = Mapping[str, list[str]]
"""The ids of what is out of order: alarms of the device, services on it."""


async def look_around(work: Work, tenant: str, device: str) -> Sight:
    """The grave alarms that are open on a device, and its services that an open alarm touches."""
    on_device = await work.store.find(ALARM.name, {"tenant": tenant, "facts.openOn": device})
    grave = [one for one in on_device if one.body["state"] in OPEN and one.body["perceivedSeverity"] in GRAVE]
    standing = [one.id for one in await inventory.on(work.store, tenant, device, "")]
    touching = {"tenant": tenant, "body.state": {"$in": list(OPEN)}, "body.affectedService.id": {"$in": standing}}
    touched = {
        service["id"]
        for alarm in (await work.store.find(ALARM.name, touching) if standing else [])
        for service in alarm.body["affectedService"]
    }
    return {"alarms": sorted(one.id for one in grave), "services": sorted(touched.intersection(standing))}


def compared(before: Sight, after: Sight) -> dict[str, dict[str, int]]:
    """How many there were, are, and are that were not, as the policy is told."""
    return {
        "before": {kind: len(ids) for kind, ids in before.items()},
        "after": {kind: len(ids) for kind, ids in after.items()},
        "newly": {kind: len(set(ids) - set(before[kind])) for kind, ids in after.items()},
    }


def baseline(told: Told, first: bool = False) -> Sight | None:
    """What was there before the changes that are to be proven now; None where there are none.

    ``first`` asks for a proof that is the first since them: what happens later is no doing of theirs.
    """
    entries = _in_order(told)
    begun = max((number for number, entry in enumerate(entries) if "before" in entry), default=None)
    if begun is None or (first and any("proved" in entry for entry in entries[begun:])):
        return None
    found: Sight = entries[begun]["before"]
    return found


def shows(told: Told, seen: Mapping[str, Any]) -> bool:
    """Whether a reading is of something that an intent has asked for, and of all of it."""
    return any(entry["function"] == "intent" and covers(seen, entry["given"]) for entry in told.values())


def lacking(told: Told) -> bool:
    """Whether evidence is missing that the fault is over: of each service the last change was read, and what is wanted
    of it; without any change something was read.
    """
    readings = [entry for entry in told.values() if entry["function"] == "observe" and entry["status"] == "done"]
    wanting = [entry for entry in readings if entry["given"]["values"] != {}]
    return not wanting or not all(
        any(seen["order"] > entry["order"] and covers(seen["given"], entry["given"]) for seen in wanting)
        for entry in _last_changes(told)
    )


def missing() -> Error:
    """What a run fails with that comes to its end unproven."""
    return error("proof", 409, "no evidence", "nothing that was heard or read shows what became of its changes")


def unproven(told: Told) -> bool:
    """Whether something was changed, or may have been, and nothing later shows what became of it."""
    later = [one for one in told.values() if one["function"] in ("observe", "listen") and one["status"] == "done"]
    return not all(
        any(
            one["order"] > entry["order"] and (one["function"] == "listen" or covers(one["given"], entry["given"]))
            for one in later
        )
        for entry in _last_changes(told)
    )


def _last_changes(told: Told) -> list[Mapping[str, Any]]:
    """Of each service the last intent that was done, or may have been."""
    changes = [one for one in _in_order(told) if one["function"] == "intent"]
    return list({place(one["given"]): one for one in changes if one["status"] != "failed" or "unknown" in one}.values())


def _in_order(told: Told) -> list[Mapping[str, Any]]:
    return sorted(told.values(), key=lambda entry: int(entry["order"]))
