"""The rules for what customers are told, read again while workers run.

read -> take over -> decide anew. What is wrong with the file leaves the rules that are in force as they are. Messages
and letters are records with ids of their own, so whichever rules decide, and however many workers have which, each is
told once; what is being sent goes to its end by the channel that has it.
"""

from __future__ import annotations

import asyncio

import structlog

from convergedon.core.errors import ConvergedonError
from convergedon.mediation.telling import cases, rules
from convergedon.mediation.telling.dispatch import Sending
from convergedon.mediation.work import Work

log = structlog.get_logger()


async def renew(work: Work, sending: Sending) -> bool:
    """Read the rules again and go on by them; says whether they are in force now."""
    if (known := work.notifications) is None:
        return False
    try:
        fresh = await asyncio.to_thread(rules.load, work.settings)
    except ConvergedonError as error:
        _told(work, "failed", f"{error}; the rules that were in force still are")
        return False
    except Exception as error:  # whatever a channel of somebody else's does when it is made
        log.exception("rules could not be read", error=type(error).__name__)
        _told(work, "failed", f"they could not be read ({type(error).__name__}); those that were in force still are")
        return False
    if fresh is None:
        return False
    sending.go_on_by(known, known.become(fresh))
    _told(work, "done", f"{len(known.channels)} channels and {len(known.windows)} windows are in force")
    await cases.decide_anew(work)
    return True


def _told(work: Work, outcome: str, words: str) -> None:
    (log.info if outcome == "done" else log.warning)("rules for notifications were read again", words=words)
    work.audit.record("notifications.reloaded", "", "convergedon", "notifications", outcome, words=words)
