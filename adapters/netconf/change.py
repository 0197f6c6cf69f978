"""What is done on a device's session in each stage of a change.

prepare reads, and locks when something is to change; commit edits and puts it in force with a timer on the device that
undoes it; verify reads again; confirm ends the timer, rollback cancels the commit. Wherever the gateway dies on that
line the device ends in the old or the new configuration: before the commit nothing was changed, and after it the
device's own timer decides unless we confirm. The commit carries an id made from the intent's key, so that whoever
performs the intent next can ask the device for it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convergedon.adapters.contract import Capability, Change, Difference, Intent
from convergedon.adapters.netconf import mapping
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.session import RPC_TIMEOUT, Connection, Denied
from convergedon.adapters.readandset import differences
from convergedon.core.errors import DeadlinePassed, Locked, Unavailable, Unsupported

LOCK_PATIENCE = 10.0
STALE_CANDIDATE = "0"  # RFC 6241, 7.5: the lock is denied in the name of session 0 when no session holds it
FIRST_WAIT = 0.01
LOOK_AGAIN = 0.5
LOCK_AGAIN = 2.0  # netconfd lets an unconfirmed commit run out only when nobody asked it anything for a second

Leaves = Mapping[str, str]
Wanted = Mapping[str, str | None]


@dataclass(frozen=True)
class Edit(Change):
    """What the leaves must hold, in text: ``wanted`` in the configuration, ``operational`` in what the device does."""

    before: Leaves | None
    service: Service
    wanted: Wanted | None
    operational: Leaves
    confirm_timeout: int


def capabilities(connection: Connection) -> frozenset[Capability]:
    known = connection.capabilities
    said: dict[Capability, bool] = {
        "read": True,
        "verify": True,
        "rollback": True,
        "candidate": ":candidate" in known,
        "confirmedCommit": ":candidate" in known and ":confirmed-commit:1.1" in known,
    }
    return frozenset(name for name, has in said.items() if has)


def observe(connection: Connection, service: Service, intent: Intent) -> Leaves | None:
    return _running(connection, service, intent, RPC_TIMEOUT)


def prepare(connection: Connection, service: Service, intent: Intent, confirm_timeout: int) -> Edit:
    """Read what the device has; where something is to change, lock it and read it again."""
    _refuse_unsafe(connection)
    wanted = None if intent.values is None else service.wanted(intent.values)
    operational = {} if intent.values is None else service.operational(intent.values)
    before = _running(connection, service, intent, _left(intent))
    needed = not _reached(service, wanted, before) or _cancelled(connection, intent, _left(intent))
    if needed:
        _lock(connection, intent)
        before = _running(connection, service, intent, _left(intent))
        needed = not _reached(service, wanted, before)
    return Edit(intent, before, _diff(service, wanted, before), needed, service, wanted, operational, confirm_timeout)


def commit(connection: Connection, edit: Edit) -> None:
    """Edit the candidate and put it in force until the device's timer runs out."""
    intent = edit.intent
    connection.call("discard_changes", within=_left(intent))  # what others left
    try:
        _edit_candidate(connection, edit)
        connection.call(
            "commit",
            confirmed=True,
            timeout=str(edit.confirm_timeout),
            persist=persist_id(intent),
            within=_left(intent),
        )
    except (Denied, DeadlinePassed) as no:
        pending = isinstance(no, Denied) and _cancelled(connection, intent, _patience(edit))
        connection.call("discard_changes", within=_patience(edit))
        if pending:
            raise Locked(f"{intent.device}: an earlier try was pending and is undone; it is tried again") from no
        raise


def verify(connection: Connection, edit: Edit) -> Sequence[Difference]:
    """Read what the device has now, and wait until its operational leaves follow, as long as the mapping gives them."""
    found = _read(connection, edit)
    wrong = _differences(edit.service, edit.wanted, found)
    if wrong or not edit.operational:
        return wrong
    until = time.monotonic() + min(edit.service.settle, edit.confirm_timeout / 2)
    wait = FIRST_WAIT
    while wrong := _differences(edit.service, edit.operational, found):
        if time.monotonic() >= until:
            return wrong
        if connection.stopping.wait(wait):
            raise Unavailable(f"{edit.intent.device}: the netconf adapter is stopping; the intent comes back")
        wait = min(2 * wait, LOOK_AGAIN)
        found = _read(connection, edit)
    return []


def confirm(connection: Connection, edit: Edit) -> None:
    connection.call("commit", persist_id=persist_id(edit.intent))


def rollback(connection: Connection, edit: Edit) -> Sequence[Difference]:
    """Cancel the commit, unless the device has undone it already, and read what it has."""
    _cancelled(connection, edit.intent, _patience(edit))
    return differences(edit.before, _running(connection, edit.service, edit.intent, _patience(edit)))


def persist_id(intent: Intent) -> str:
    """Name the confirmed commit of an intent, alike for whoever performs it."""
    return "convergedon-" + hashlib.sha256(intent.key.encode()).hexdigest()[:32]


def _refuse_unsafe(connection: Connection) -> None:
    known = connection.capabilities
    missing = "" if ":confirmed-commit:1.1" in known else "confirmed commit 1.1 (RFC 6241, 8.4)"
    if ":candidate" not in known:
        missing = "candidate configuration"
    if missing:
        raise Unsupported(f"{connection.device} has no {missing}, without which it cannot be changed safely")


def _reached(service: Service, wanted: Wanted | None, found: Leaves | None) -> bool:
    return not _differences(service, wanted, found)


def _differences(service: Service, wanted: Wanted | None, found: Leaves | None) -> list[Difference]:
    if wanted is None or found is None:
        return [] if wanted is None and found is None else [Difference("", wanted, found)]
    return [Difference(leaf, wanted[leaf], found.get(leaf)) for leaf in service.differing(wanted, found)]


def _diff(service: Service, wanted: Wanted | None, before: Leaves | None) -> dict[str, tuple[object, object]]:
    held = before or {}
    to = dict.fromkeys(held) if wanted is None else wanted
    changing = [leaf for leaf in service.differing(to, held) if leaf != service.key]
    return {leaf: (mapping.plain(held.get(leaf)), mapping.plain(to[leaf])) for leaf in changing}


def _running(connection: Connection, service: Service, intent: Intent, within: float) -> dict[str, str] | None:
    chosen = service.subtree(intent.instance)
    reply = connection.call("get_config", source="running", filter=chosen, within=within)
    return service.read(reply.data_ele, intent.instance)


def _read(connection: Connection, edit: Edit) -> dict[str, str] | None:
    """Read the configuration, and in the same call the operational leaves where there are any to compare."""
    if not edit.operational:
        return _running(connection, edit.service, edit.intent, _patience(edit))
    chosen = edit.service.subtree(edit.intent.instance)
    reply = connection.call("get", filter=chosen, within=_patience(edit))
    return edit.service.read(reply.data_ele, edit.intent.instance)


def _lock(connection: Connection, intent: Intent) -> None:
    """Lock the candidate. Others' locks are waited for, bounded by patience and deadline."""
    patience = time.time() + min(LOCK_PATIENCE, _left(intent))
    wait = FIRST_WAIT
    while denied := connection.lock("candidate", _left(intent)):
        mended = denied.holder == STALE_CANDIDATE and _discarded(connection, intent)
        if time.time() + wait >= patience:
            holder = f"locked by session {denied.holder}" if denied.holder else denied.words
            raise Locked(f"{intent.device}: {holder}; it is tried again later") from denied
        if not mended and connection.stopping.wait(wait):
            raise Unavailable(f"{intent.device}: the netconf adapter is stopping; the intent comes back")
        wait = min(2 * wait, LOCK_AGAIN)


def _discarded(connection: Connection, intent: Intent) -> bool:
    try:
        connection.call("discard_changes", within=_left(intent))
    except Denied:
        return False
    return True


def _edit_candidate(connection: Connection, edit: Edit) -> None:
    """Edit and validate in the same call: netconfd commits nothing after a separate validate."""
    options = {}
    if ":validate" in connection.capabilities:
        options["test_option"] = "test-then-set"
    if ":rollback-on-error" in connection.capabilities:
        options["error_option"] = "rollback-on-error"
    payload = edit.service.payload(edit.intent.instance, edit.wanted)
    connection.call(
        "edit_config", payload, target="candidate", default_operation="merge", within=_left(edit.intent), **options
    )


def _cancelled(connection: Connection, intent: Intent, within: float) -> bool:
    """Undo our commit where it is pending; whether it was."""
    try:
        connection.call("cancel_commit", persist_id=persist_id(intent), within=within)
    except Denied:
        return False
    return True


def _left(intent: Intent) -> float:
    """Give the seconds a call may take before the commit. Raises DeadlinePassed when there are none."""
    left = intent.deadline - time.time()
    if left <= 0:
        raise DeadlinePassed(f"{intent.device}: the deadline passed before the commit; nothing was changed")
    return min(RPC_TIMEOUT, left)


def _patience(edit: Edit) -> float:
    """Give the seconds a call may take once the device's own timer runs."""
    return min(RPC_TIMEOUT, float(edit.confirm_timeout))
