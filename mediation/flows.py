"""What happens when: the program of the gateway on one page. Each function stands in the module of its line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from convergedon.core.bus import Message
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.mediation import (
    alarm_tasks,
    assurance,
    billing,
    cancellation,
    counters,
    drafts,
    metering,
    ordering,
    problems,
)
from convergedon.mediation.telling import cases, dispatch
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import remediation

Step = Callable[[Work, Message], Awaitable[None]]

FLOWS: Mapping[str, tuple[Step, ...]] = {
    # order line
    "ProductOrderCreateEvent": (ordering.fulfil,),
    "outcome": (ordering.advance,),
    "ProductOrderAttributeValueChangeEvent": (ordering.resume, cancellation.conclude),
    "ProductOrderStateChangeEvent": (drafts.submit, assurance.tell_order_ended, cancellation.conclude),
    "CancelProductOrderCreateEvent": (cancellation.cancel,),
    # fault line
    "fault": (assurance.hear,),
    "unmapped": (assurance.hear,),
    "clear": (assurance.hear,),
    "AlarmCreateEvent": (problems.take_up, remediation.begin),
    "AlarmStateChangeEvent": (problems.take_up, remediation.hear),
    "AlarmAttributeValueChangeEvent": (problems.take_up, remediation.begin),
    "AlarmDeleteEvent": (problems.take_up,),
    "look": (problems.correlate,),
    "ServiceStateChangeEvent": (problems.let_go,),
    "ServiceDeleteEvent": (problems.let_go,),
    "AffectedPartyCreateEvent": (cases.hear,),
    "AffectedPartyAttributeValueChangeEvent": (cases.hear,),
    "AffectedPartyStateChangeEvent": (cases.hear,),
    "CustomerNotificationDeleteEvent": (cases.let_go,),
    "undelivered": (dispatch.hand_over,),
    "WorkflowRunCreateEvent": (dispatch.tell_operators,),
    "WorkflowRunStateChangeEvent": (dispatch.tell_operators,),
    "WorkflowApprovalCreateEvent": (remediation.approve,),
    "answer": (remediation.take,),
    "request": (remediation.request,),
    "AckAlarmsCreateEvent": (alarm_tasks.begin,),
    "UnAckAlarmsCreateEvent": (alarm_tasks.begin,),
    "ClearAlarmsCreateEvent": (alarm_tasks.begin,),
    "CommentAlarmsCreateEvent": (alarm_tasks.begin,),
    "GroupAlarmsCreateEvent": (alarm_tasks.begin,),
    "UnGroupAlarmsCreateEvent": (alarm_tasks.begin,),
    "slice": (alarm_tasks.carry_on,),
    # usage line
    "flow": (metering.meter,),
    "counter": (counters.count,),
    "call": (metering.take,),
    "interval": (metering.close,),
    "UsageCreateEvent": (billing.guide,),
    "UsageStateChangeEvent": (billing.rate,),
    "CustomerBillOnDemandCreateEvent": (billing.bill,),
}

TOGETHER: Mapping[Step, Callable[[Work, Sequence[Message]], Awaitable[None]]] = {assurance.hear: assurance.hear_all}
"""How steps are done for many observations that came in one message."""
IDLE: Mapping[Step, Callable[[Work, Message], bool]] = {
    problems.take_up: lambda _, message: problems.is_known(message),
    dispatch.tell_operators: dispatch.is_for_nobody,
    problems.let_go: lambda _, message: problems.is_going_on(message),
    remediation.begin: lambda work, message: not remediation.meant(work, message),
}
"""When steps have nothing to do: then nobody is asked whether they may, and there is nothing to record."""


def step_name(step: Step) -> str:
    """What a step is called in policies, audit records and logs: its module and function, ordering.fulfil."""
    return f"{step.__module__.rpartition('.')[2]}.{step.__name__}"


TURNS = ("slice", "interval", "request", "look", "undelivered")
"""A task's next slice, an interval that is over, a workflow's request, a look at alarms, a letter that nobody takes."""


def name_of(message: Message) -> str:
    """What happened: the type of an event, the kind of an observation, whose turn it is (``TURNS``), the answer to a
    workflow's intent or reading, or the outcome of an order's.
    """
    if "event" in message.body:
        return str(message.body["event"]["eventType"])
    if "observation" in message.body:
        return str(message.body["observation"]["kind"])
    if turn := next((turn for turn in TURNS if turn in message.body), ""):
        return turn
    return "answer" if message.body["about"].get("kind") == WORKFLOW_RUN.name else "outcome"
