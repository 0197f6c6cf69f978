"""What is done on a device's session in each stage of a change.

prepare reads, and locks when something is to change; commit edits and puts it in force; verify reads again; confirm
makes it last, rollback brings back what was. How safe that is depends on what the device can:

- With a candidate and confirmed commit 1.1 it is put in force with a timer on the device that undoes it. Wherever the
  gateway dies the device ends in the old or the new configuration: before the commit nothing was changed, and after it
  the device's own timer decides unless we confirm. The commit carries an id made from the intent's key, so that whoever
  performs the intent next can ask the device for it.
- With confirmed commit 1.0 (RFC 4741) only the session that committed can confirm, and its end is the change's end: to
  take it back we leave. Whoever finds the new configuration asks whether it is pending by locking running, which the
  device denies as long as it is.
- Without, we undo ourselves, by editing back what was read before. A gateway that dies after the edit leaves the new
  configuration, which the next delivery of the intent verifies.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convergedon.adapters.contract import Capability, Change, Difference, Intent
from convergedon.adapters.netconf import mapping
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.session import RPC_TIMEOUT, Connection, Denied
from convergedon.adapters.readandset import differences
from convergedon.core.errors import DeadlinePassed, Locked, OutcomeUnknown, Unavailable, Unsupported

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
    said: dict[Capability, bool] = {
        "read": True,
        "verify": True,
        "rollback": bool(_target(connection)),
        "candidate": _target(connection) == "candidate",
        "confirmedCommit": _by_id(connection) or _by_session(connection),
        "notifications": connection.can(":notification"),
    }
    return frozenset(name for name, has in said.items() if has)


def observe(connection: Connection, service: Service, intent: Intent) -> Leaves | None:
    return _stored(connection, service, intent, RPC_TIMEOUT)


def compare(
    connection: Connection, service: Service, intent: Intent, confirm_timeout: int
) -> tuple[Leaves | None, Sequence[Difference]]:
    """Read what the device has and does, and wait for what it does as long as the mapping gives it.

    Of what no value names nothing is wanted: without values it is only read.
    """
    if intent.values is None:
        found = _stored(connection, service, intent, RPC_TIMEOUT)
        return found, _differences(service, None, found)
    wanted, operational = service.compared(intent.values)
    edit = Edit(intent, None, {}, False, service, wanted, operational, confirm_timeout)
    return _settled(connection, edit) if wanted or operational else (_whole(connection, edit), ())


def prepare(connection: Connection, service: Service, intent: Intent, confirm_timeout: int) -> Edit:
    """Read what the device has; where something is to change, lock it and read it again."""
    if not _target(connection):
        raise Unsupported(f"{connection.device} has neither a candidate nor a writable running configuration")
    wanted, operational = _texts(service, intent)
    before = _stored(connection, service, intent, _left(intent))
    needed = bool(_differences(service, wanted, before)) or _was_pending(connection, intent)
    if needed:
        _lock(connection, _left(intent))
        before = _stored(connection, service, intent, _left(intent))
        needed = bool(_differences(service, wanted, before))
    edit = Edit(intent, before, _diff(service, wanted, before), needed, service, wanted, operational, confirm_timeout)
    if not needed:
        _keep_what_stands(connection, edit)
    return edit


def commit(connection: Connection, edit: Edit) -> bool:
    """Edit, and put it in force until the device's timer runs out, where it has one.

    Whether the device was seen right afterwards to have and do all that is wanted: mostly it has, and verify need not
    come back for it.
    """
    try:
        if _target(connection) == "candidate":
            _discard(connection, _left(edit.intent))  # what others left
            _edit(connection, edit, edit.wanted, _left(edit.intent))
            _commit(connection, edit, _left(edit.intent))
        else:
            _edit(connection, edit, edit.wanted, _left(edit.intent))
    except (Denied, DeadlinePassed) as no:
        _take_back(connection, edit, no)
        raise
    try:
        found = _read(connection, edit)
    except Denied:
        return False  # it is in force all the same: verify asks again, and says why
    return not (_differences(edit.service, edit.wanted, found) or _lagging(edit, found))


def verify(connection: Connection, edit: Edit) -> Sequence[Difference]:
    """Read what the device has now, and wait until its operational leaves follow, as long as the mapping gives them.

    The device's timer is set anew before it runs out.
    """
    return _settled(connection, edit)[1]


def _settled(connection: Connection, edit: Edit) -> tuple[Leaves | None, Sequence[Difference]]:
    found = _read(connection, edit)
    if wrong := _differences(edit.service, edit.wanted, found):
        return found, wrong
    wait, until = FIRST_WAIT, time.monotonic() + edit.service.settle
    extend = time.monotonic() + edit.confirm_timeout / 3
    while wrong := _lagging(edit, found):
        if time.monotonic() >= until:
            return found, wrong
        if connection.stopping.wait(wait):
            raise Unavailable(f"{connection.device}: the netconf adapter is stopping; the intent comes back")
        if edit.needed and _by_id(connection) and time.monotonic() >= extend:
            _extend(connection, edit)
            extend = time.monotonic() + edit.confirm_timeout / 3
        wait = min(2 * wait, LOOK_AGAIN, edit.confirm_timeout / 6)
        found = _read(connection, edit)
    return found, []


def confirm(connection: Connection, edit: Edit) -> None:
    """Make it last, past a restart of the device too."""
    if _by_id(connection):
        connection.call("commit", persist_id=persist_id(edit.intent), within=_patience(edit))
    elif _by_session(connection):
        if not connection.holds:
            raise Unavailable(f"{connection.device}: the session that committed has ended, and the change with it")
        connection.call("commit", within=_patience(edit))
    if connection.can(":startup"):
        _keep(connection, edit)
    connection.unlock()


def leave(connection: Connection, edit: Edit) -> None:
    """End the session that committed, where that is how the device undoes it."""
    if _by_session(connection) and connection.holds:
        connection.leave()


def rollback(connection: Connection, edit: Edit) -> Sequence[Difference]:
    """Cancel the commit, unless the device has undone it already, or edit back; then read what it has."""
    if _by_id(connection):
        _cancelled(connection, edit.intent, _patience(edit))
    elif _by_session(connection):
        _over(connection, _timer(connection, edit) + RPC_TIMEOUT)
    else:
        _edit_back(connection, edit)
    now = _stored(connection, edit.service, edit.intent, _patience(edit))
    connection.unlock()
    return differences(edit.before, now)


def persist_id(intent: Intent) -> str:
    """Name the confirmed commit of an intent, alike for whoever performs it."""
    return "convergedon-" + hashlib.sha256(intent.key.encode()).hexdigest()[:32]


def _texts(service: Service, intent: Intent) -> tuple[Wanted | None, Leaves]:
    """What the leaves must hold, in the configuration and in what the device does."""
    if intent.values is None:
        return None, {}
    return service.wanted(intent.values), service.operational(intent.values)


def _target(connection: Connection) -> str:
    """The datastore that is edited; none on a device that can only be read."""
    if connection.can(":candidate"):
        return "candidate"
    return "running" if connection.can(":writable-running") else ""


def _by_id(connection: Connection) -> bool:
    """Whether the device undoes what is not confirmed by whoever knows its id."""
    return _target(connection) == "candidate" and connection.can(":confirmed-commit:1.1")


def _by_session(connection: Connection) -> bool:
    """Whether it undoes what the session that committed does not confirm."""
    return _target(connection) == "candidate" and not _by_id(connection) and connection.can(":confirmed-commit:1.0")


def _timer(connection: Connection, edit: Edit) -> int:
    """The seconds after which the device undoes it; one of version 1.0 does not let them be set anew."""
    return edit.confirm_timeout if _by_id(connection) else max(edit.confirm_timeout, math.ceil(edit.service.settle) + 5)


def _was_pending(connection: Connection, intent: Intent) -> bool:
    """Whether what the device has was that of a commit that was not confirmed; it is none any more."""
    if not _by_session(connection):
        return _cancelled(connection, intent, _left(intent))
    if _over(connection, 0.0):
        return False
    if not _over(connection, min(LOCK_PATIENCE, _left(intent))):
        raise Locked(f"{connection.device}: another session has not confirmed its commit, or has locked running")
    return True


def _over(connection: Connection, patience: float) -> bool:
    """Whether running could be locked for a moment: it cannot while another session has a commit pending."""
    until, wait = time.monotonic() + patience, FIRST_WAIT
    while connection.lock("running", RPC_TIMEOUT):
        if time.monotonic() + wait >= until:
            return False
        if connection.stopping.wait(wait):
            raise Unavailable(f"{connection.device}: the netconf adapter is stopping; the intent comes back")
        wait = min(2 * wait, LOOK_AGAIN)
    connection.unlock()
    return True


def _differences(service: Service, wanted: Wanted | None, found: Leaves | None) -> list[Difference]:
    if wanted is None or found is None:
        return [] if wanted is None and found is None else [Difference("", wanted, found)]
    return [Difference(leaf, wanted[leaf], found.get(leaf)) for leaf in service.differing(wanted, found)]


def _lagging(edit: Edit, found: Leaves | None) -> list[Difference]:
    return _differences(edit.service, edit.operational, found) if edit.operational else []


def _diff(service: Service, wanted: Wanted | None, before: Leaves | None) -> dict[str, tuple[object, object]]:
    held = before or {}
    to = dict.fromkeys(held) if wanted is None else wanted
    changing = [leaf for leaf in service.differing(to, held) if leaf != service.key]
    return {leaf: (mapping.plain(held.get(leaf)), mapping.plain(to[leaf])) for leaf in changing}


def _stored(
    connection: Connection, service: Service, intent: Intent, within: float, source: str = "running"
) -> dict[str, str] | None:
    chosen = service.subtree(intent.instance)
    reply = connection.call("get_config", source=source, filter=chosen, within=within)
    return service.read(reply.data_ele, intent.instance)


def _read(connection: Connection, edit: Edit) -> dict[str, str] | None:
    """Read the configuration, and in the same call the operational leaves where there are any to compare."""
    if not edit.operational:
        return _stored(connection, edit.service, edit.intent, _patience(edit))
    return _whole(connection, edit)


def _whole(connection: Connection, edit: Edit) -> dict[str, str] | None:
    chosen = edit.service.subtree(edit.intent.instance, state=True)
    reply = connection.call("get", filter=chosen, within=_patience(edit))
    return edit.service.read(reply.data_ele, edit.intent.instance)


def _lock(connection: Connection, within: float) -> None:
    """Lock what is edited. Others' locks are waited for, with patience."""
    patience = time.monotonic() + min(LOCK_PATIENCE, within)
    wait = FIRST_WAIT
    while denied := connection.lock(_target(connection), within):
        mended = denied.holder == STALE_CANDIDATE and _discarded(connection, within)
        if time.monotonic() + wait >= patience:
            holder = f"locked by session {denied.holder}" if denied.holder else denied.words
            raise Locked(f"{connection.device}: {holder}; it is tried again later") from denied
        if not mended and connection.stopping.wait(wait):
            raise Unavailable(f"{connection.device}: the netconf adapter is stopping; the intent comes back")
        wait = min(2 * wait, LOCK_AGAIN)


def _discard(connection: Connection, within: float) -> None:
    connection.call("discard_changes", within=within)


def _discarded(connection: Connection, within: float) -> bool:
    try:
        _discard(connection, within)
    except Denied:
        return False
    return True


def _edit(connection: Connection, edit: Edit, wanted: Wanted | None, within: float) -> None:
    """Edit and validate in the same call: netconfd commits nothing after a separate validate."""
    options = {}
    if connection.can(":validate"):
        options["test_option"] = "test-then-set"
    if connection.can(":rollback-on-error"):
        options["error_option"] = "rollback-on-error"
    payload, target = edit.service.payload(edit.intent.instance, wanted), _target(connection)
    connection.call("edit_config", payload, target=target, default_operation="merge", within=within, **options)


def _commit(connection: Connection, edit: Edit, within: float) -> None:
    if _by_id(connection):
        timer = {"confirmed": True, "timeout": str(edit.confirm_timeout), "persist": persist_id(edit.intent)}
        connection.call("commit", within=within, **timer)
    elif _by_session(connection):
        connection.call("commit", within=within, confirmed=True, timeout=str(_timer(connection, edit)))
    else:
        connection.call("commit", within=within)


def _extend(connection: Connection, edit: Edit) -> None:
    """Set the device's timer anew (RFC 6241, 8.4.1: a confirmed commit that follows one extends it)."""
    timer = {"confirmed": True, "timeout": str(edit.confirm_timeout), "persist_id": persist_id(edit.intent)}
    connection.call("commit", within=_patience(edit), **timer)


def _take_back(connection: Connection, edit: Edit, no: Exception) -> None:
    """Leave nothing of a change that did not come into force."""
    if _target(connection) == "running":
        if not connection.can(":rollback-on-error"):
            _edit_back(connection, edit)
        return
    pending = isinstance(no, Denied) and _cancelled(connection, edit.intent, _patience(edit))
    _discard(connection, _patience(edit))
    if pending:
        raise Locked(f"{connection.device}: an earlier try was pending and is undone; it is tried again") from no


def _edit_back(connection: Connection, edit: Edit) -> None:
    """Edit and commit what was there before, where something else is there now."""
    if not connection.holds:
        _lock(connection, _patience(edit))
    now = _stored(connection, edit.service, edit.intent, _patience(edit))
    if not differences(edit.before, now):
        return
    former = None if edit.before is None else {**dict.fromkeys(now or {}), **edit.before}
    if former is not None:
        del former[edit.service.key]
    _edit(connection, edit, former, _patience(edit))
    if _target(connection) == "candidate":
        connection.call("commit", within=_patience(edit))


def _keep_what_stands(connection: Connection, edit: Edit) -> None:
    """Copy to what the device starts with what an earlier try had confirmed, where that was its last step."""
    if connection.can(":startup"):
        kept = _stored(connection, edit.service, edit.intent, _left(edit.intent), source="startup")
        if _differences(edit.service, edit.wanted, kept):
            _keep(connection, edit)


def _keep(connection: Connection, edit: Edit) -> None:
    try:
        connection.call("copy_config", source="running", target="startup", within=_patience(edit))
    except Denied as denied:
        words = f"{connection.device}: it is in force, and would be lost when the device restarts: {denied.words}"
        raise OutcomeUnknown(words) from denied


def _cancelled(connection: Connection, intent: Intent, within: float) -> bool:
    """Undo our commit where it is pending; whether it was."""
    if not _by_id(connection):
        return False
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
    return min(RPC_TIMEOUT, edit.confirm_timeout / 2)
