"""The configurations of a lab element: candidate and running, who holds them, and a commit that waits to be confirmed.

They are kept in a folder before anybody is told that they are so. Each operation is given the id of the session that
asks for it, and raises RpcError.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab import editing
from convergedon.adapters.netconf.lab.memory import write
from convergedon.adapters.netconf.lab.messages import (
    NC,
    RpcError,
    confirm_seconds,
    datastore_of,
    parse,
    serialise,
    text_of,
)

Operation = Callable[[int, etree._Element], None]


@dataclass
class Pending:
    """A confirmed commit that waits for its confirmation."""

    before: etree._Element
    persist: str | None
    session: int
    timer: asyncio.TimerHandle


class Datastores:
    """``can`` says what the element has; ``check`` raises for what it does not take, ``changed`` is told of running.

    ``expired`` is told when a commit was undone because nobody confirmed it.
    """

    def __init__(
        self,
        file: Path,
        can: Callable[[str], bool],
        check: Callable[[etree._Element, bool], None],
        changed: Callable[[], None],
        expired: Callable[[], None],
    ) -> None:
        self._file, self._can, self._check, self._changed, self._expired = file, can, check, changed, expired
        self.running = editing.empty()
        self.candidate: etree._Element | None = None  # None while it is the same as running
        self.pending: Pending | None = None
        self.locks: dict[str, int] = {}
        self.operations: Mapping[str, Operation] = {
            "lock": self._lock,
            "unlock": self._unlock,
            "edit-config": self._edit_config,
            "validate": self._validate,
            "commit": self._commit,
            "cancel-commit": self._cancel_commit,
            "discard-changes": self._discard_changes,
        }

    def stored(self, name: str) -> etree._Element:
        if name == "running":
            return self.running
        if name == "candidate" and self._can(":candidate:"):
            return self.running if self.candidate is None else self.candidate
        raise RpcError("invalid-value", f"there is no datastore {name!r}", type_="protocol")

    def ended(self, session: int) -> None:
        """Release what a session held (RFC 6241: 7.5, 8.3.5.2, 8.4.1)."""
        for datastore in [name for name, holder in self.locks.items() if holder == session]:
            del self.locks[datastore]
            if datastore == "candidate":
                self.candidate = None
        if self.pending and self.pending.persist is None and self.pending.session == session:
            self._undo()

    def stop(self) -> None:
        """Forget what is in memory only. A commit that is not confirmed is undone by ``restore``."""
        if self.pending is not None:
            self.pending.timer.cancel()
            self.pending = None
        self.candidate = None
        self.locks.clear()

    def restore(self) -> None:
        """Begin with what was kept."""
        if not self._file.exists():
            return
        state = json.loads(self._file.read_text(encoding="utf-8"))
        self.running = parse((state["before"] or state["running"]).encode())
        self._changed()
        if state["before"]:
            self._save()

    # --- operations

    def _lock(self, session: int, operation: etree._Element) -> None:
        target = datastore_of(operation, "target")
        self.stored(target)
        if (holder := self.locks.get(target)) is not None:
            raise _denied(f"{target} is locked", holder)
        if target == "candidate" and self.candidate is not None:
            raise _denied("the candidate has changes that nobody committed", 0)
        if target == "running" and self.pending and self.pending.session != session:
            raise _denied("a confirmed commit is pending", self.pending.session)
        self.locks[target] = session

    def _unlock(self, session: int, operation: etree._Element) -> None:
        target = datastore_of(operation, "target")
        if self.locks.get(target) != session:
            raise RpcError("operation-failed", f"this session does not hold the lock of {target}", type_="protocol")
        del self.locks[target]

    def _edit_config(self, session: int, operation: etree._Element) -> None:
        target = datastore_of(operation, "target")
        if target != "candidate" and not self._can(":writable-running:"):
            raise RpcError("operation-not-supported", "only the candidate can be edited", type_="protocol")
        self._free(target, session)
        config = operation.find(f"{{{NC}}}config")
        if config is None:
            raise RpcError(
                "missing-element", "edit-config without config", info={"bad-element": "config"}, type_="protocol"
            )
        default = operation.findtext(f"{{{NC}}}default-operation", "merge").strip()
        option = operation.findtext(f"{{{NC}}}test-option", "test-then-set").strip()
        if default not in ("merge", "replace", "none") or option not in ("test-then-set", "set", "test-only"):
            raise RpcError("invalid-value", "no such default-operation or test-option", type_="protocol")
        edited = editing.empty() if default == "replace" else copy.deepcopy(self.stored(target))
        editing.apply(edited, config, default)
        editing.prune(edited)
        self._check(edited, option != "set")
        if option == "test-only":
            return
        if target == "candidate":
            self.candidate = edited
        else:
            self.running = edited
            self._save()

    def _validate(self, session: int, operation: etree._Element) -> None:
        source = operation.find(f"{{{NC}}}source")
        config = source.find(f"{{{NC}}}config") if source is not None else None
        self._check(config if config is not None else self.stored(datastore_of(operation, "source")), True)

    def _commit(self, session: int, operation: etree._Element) -> None:
        self._free("candidate", session)
        self._free("running", session)
        confirmed = operation.find(f"{{{NC}}}confirmed") is not None
        self._refuse_what_it_cannot(operation, confirmed)
        persist_id, pending = text_of(operation, "persist-id"), self.pending
        if persist_id is not None and (pending is None or pending.persist != persist_id):
            raise RpcError("invalid-value", "no confirmed commit with this persist-id is pending", type_="protocol")
        if pending and persist_id is None and (pending.persist is not None or pending.session != session):
            raise RpcError("in-use", "another confirmed commit is pending", type_="protocol")
        committed = copy.deepcopy(self.stored("candidate"))
        self._check(committed, True)
        timeout = confirm_seconds(operation) if confirmed else 0.0
        before = pending.before if pending else self.running
        if pending:
            pending.timer.cancel()
        self.running, self.candidate, self.pending = committed, None, None
        if confirmed:
            persist = text_of(operation, "persist") or (pending.persist if pending else None)
            timer = asyncio.get_running_loop().call_later(timeout, self._expire)
            self.pending = Pending(before, persist, session, timer)
        self._save()

    def _refuse_what_it_cannot(self, operation: etree._Element, confirmed: bool) -> None:
        """Version 1.0 of confirmed commits (RFC 4741) knows no id by which another session could confirm."""
        for name in ("persist", "persist-id"):
            if operation.find(f"{{{NC}}}{name}") is not None and not self._can(":confirmed-commit:1.1"):
                raise RpcError(
                    "unknown-element", f"commit knows no {name} here", info={"bad-element": name}, type_="protocol"
                )
        if confirmed and not self._can(":confirmed-commit:"):
            raise RpcError("operation-not-supported", "there is no confirmed commit here", type_="protocol")

    def _cancel_commit(self, session: int, operation: etree._Element) -> None:
        if not self._can(":confirmed-commit:1.1"):
            raise RpcError("operation-not-supported", "there is no cancel-commit here", type_="protocol")
        persist_id = text_of(operation, "persist-id")
        if self.pending is None:
            raise RpcError("operation-failed", "no confirmed commit is pending", type_="protocol")
        if self.pending.persist != persist_id or (persist_id is None and self.pending.session != session):
            raise RpcError("invalid-value", "the pending confirmed commit has another persist-id", type_="protocol")
        self._undo()

    def _discard_changes(self, session: int, operation: etree._Element) -> None:
        self._free("candidate", session)
        self.candidate = None

    def _free(self, datastore: str, session: int) -> None:
        holder = self.locks.get(datastore)
        if holder is not None and holder != session:
            raise RpcError(
                "in-use",
                f"{datastore} is locked by session {holder}",
                info={"session-id": str(holder)},
                type_="protocol",
            )

    # --- keeping

    def _expire(self) -> None:
        self._undo()
        self._expired()

    def _undo(self) -> None:
        """Bring back what was before the pending confirmed commit."""
        if self.pending is not None:
            self.pending.timer.cancel()
            self.running, self.pending = self.pending.before, None
            self._save()

    def _save(self) -> None:
        """Keep running, and what a pending commit would go back to, before anybody is told that it is so."""
        self._changed()
        state = {"running": serialise(self.running).decode(), "before": None}
        if self.pending is not None:
            state["before"] = serialise(self.pending.before).decode()
        write(self._file, json.dumps(state))


def _denied(words: str, holder: int) -> RpcError:
    return RpcError("lock-denied", words, info={"session-id": str(holder)}, type_="protocol")
