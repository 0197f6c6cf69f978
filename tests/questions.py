"""Questions to the policies, as many as one likes: made by chance, and shaped so that both answers are common."""

from __future__ import annotations

import random
from typing import Any

from convergedon.core import checking, policy

DATA = policy.read().data
ROLES = (*DATA["roles"], "nobody", "")
TENANTS = ("acme", "globex", "nobody", "*", "")
KINDS = tuple(sorted({kind for granted in DATA["roles"].values() for kind in granted} | {"intent", "readiness", "x"}))
ACTIONS = (*sorted(checking.ACTIONS), "*", "")
CHANNELS = ("rest", "console", "delivery", "notification", "task", "flow", "adapter", "readiness", "")
PARTIES = ("northwind", "contoso", "")
NOW = 1_800_000_000
# No 1e12: both refuse it, but OPA's reason has 1e+12 where the embedded engine's has 1000000000000
VALUES: tuple[Any, ...] = (
    0, 1, 999.5, 1000, 1001, 2000, 2000.5, 5000, 5001, 10**12, -1, "fast", "9999", "", None, True, False, [], {}, [7],
)  # fmt: skip
OWNERS = (
    {"id": "x", "tenant": "acme", "roles": ["csr"], "issued": NOW - 60},
    {"id": "y", "tenant": "acme", "roles": ["noc", "csr"]},
    {"id": "z", "tenant": "globex", "roles": []},
)
MEMBERS: dict[str, tuple[Any, ...]] = {
    "api": ("/tmf-api/alarmManagement/v4", ""),
    "id": ("7", ""),
    "step": ("ordering.fulfil", "ordering.finish", ""),
    "device": ("pe1", "pe2", "pe9", ""),
    "deviceTenant": ("acme", "acme", "globex", ""),
    "site": ("berlin-1", "munich-1", "moon-1", ""),
    "sites": (["berlin-1"], ["berlin-1", "hamburg-1"], ["munich-1", "moon-1"], []),
    "order": ("o-1", ""),
    "of": ("productOrder", "usage", "alarm", ""),
    "owner": (*OWNERS, ""),
    "purpose": ("order", "remediation", "undo", "sabotage", ""),
    "workflow": ("reset-port", "other"),
    "changes": (True, False),
    "known": (True, False),
    **dict.fromkeys(("recent", "repairs", "affected", "raised", "underWay", "waiting"), (0, 2, 3, 7, 101)),
    "stopped": ("", "maintenance"),
    "before": ({"alarms": 1, "services": 2}, {"alarms": 0, "services": 0}, {}),
    "after": ({"alarms": 1, "services": 2}, {"alarms": 5, "services": 0}, {}),
    "newly": ({"alarms": 0, "services": 0}, {"alarms": 1, "services": 1}, {}),
    "severity": ("critical", "major", ""),
    "quiet": ({"until": NOW + 3_600, "breakThrough": ["critical"]}, {"until": NOW - 60, "breakThrough": []}, {}),
    "viaKind": ("email", "webhook", "pigeon", ""),
    "approval": (
        *({"decision": "approved", "by": by, "time": NOW - age} for by in OWNERS for age in (10, 4_000)),
        {"decision": "denied", "by": OWNERS[1], "time": NOW},
        {"decision": "approved"},
    ),
}
"""What a resource may say of itself besides."""
BUSY = {
    "windows": {
        "acme": {"berlin-1": [{"days": ["saturday", "sunday"], "from": [22, 0], "to": [4, 30]}], "*": []},
        "globex": {"*": [{"days": ["monday"], "from": [0, 0], "to": [0, 0]}]},
    },
    "geography": {
        "countries": {"acme": {"berlin-1": "DE", "moon-1": "XX"}, "globex": {"munich-1": "DE"}},
        "devices": {"pe1": "DE", "pe2": "CH"},
        "served": {"acme": {"countries": ["DE"], "sites": ["hamburg-1"]}, "*": {"countries": ["CH"]}},
    },
    "shared": {"pe2": ["acme"]},
    "withdrawn": {"subjects": {"acme": {"y": NOW - 30}}, "roles": {"globex": {"csr": NOW}, "*": {"noc": 1}}},
    "longest": {"csr": 3_600, "*": 86_400},
    "channels": {"allowed": {"acme": ["email"]}, "kinds": {"email": {"mask": ["iban"]}, "*": {}}},
    "remediation": {
        "approvers": ["noc"],
        "automatic": {"acme": ["reset-port"]},
        "valid": 3_600,
        "flapping": ["other"],
        "limits": {"perHour": 3, "affected": 100, "raised": 5, "underWay": 20, "each": {"other": {"perHour": 2}}},
        "worse": {"services": 1},
    },
}
"""Data in which every policy has something to say; what ships leaves much of it empty."""


def question(dice: random.Random) -> dict[str, Any]:
    """Shaped as the gateway's questions and the policies' own tests are; now and then something is missing or wrong.

    Half of them ask for what some role is granted, in the subject's own tenant: of chance alone hardly any would be
    allowed.
    """

    def seldom(chance: float = 0.06) -> bool:
        return dice.random() < chance

    likely = dice.random() < 0.6
    role = dice.choice(list(DATA["roles"]))
    granted = DATA["roles"][role]
    kind = dice.choice(list(granted))
    tenant = dice.choice(TENANTS[:2] if likely else TENANTS)
    subject: dict[str, Any] = {
        "id": "x",
        "tenant": tenant,
        "roles": [role] if likely else dice.sample(ROLES, dice.randint(0, 3)),
    }
    if dice.random() < 0.5:
        subject["party"] = dice.choice(PARTIES[:1] if likely else PARTIES)
    if dice.random() < 0.6:
        subject["issued"] = NOW - dice.choice((0, 60, 3_599, 3_601, 86_401, 10**7, -60))
    resource: dict[str, Any] = {"kind": dice.choice(KINDS) if kind == "*" or not likely else kind}
    if dice.random() < 0.8:
        resource["tenant"] = tenant if likely or dice.random() < 0.7 else dice.choice(TENANTS)
    if dice.random() < 0.3:
        resource["parties"] = dice.sample(PARTIES, dice.randint(0, 2))
    for name, values in MEMBERS.items():
        if seldom(0.25):
            resource[name] = dice.choice(values)
    asked: dict[str, Any] = {
        "subject": subject,
        "action": dice.choice(ACTIONS if not likely or "*" in granted[kind] else granted[kind]),
        "resource": resource,
        "body": body(dice),
        "before": body(dice) if seldom(0.3) else None,
        "channel": dice.choice(CHANNELS),
        "environment": {"time": NOW + dice.choice((0, 0, 3_600 * dice.randint(0, 168)))},
    }
    for part in (asked, subject, resource):
        if seldom():
            part.pop(dice.choice(list(part)))
    if seldom():
        asked[dice.choice(list(asked))] = dice.choice(VALUES)
    if seldom():
        subject[dice.choice(list(subject) or ["roles"])] = dice.choice(VALUES)
    if seldom():
        resource[dice.choice(list(resource) or ["kind"])] = dice.choice(VALUES)
    return asked


def body(dice: random.Random) -> Any:
    """Of an order, of an intent, of a listener, or none; parts of it may have another form."""

    def odd(value: Any) -> Any:
        return dice.choice(VALUES) if dice.random() < 0.04 else value

    def characteristic() -> Any:
        name = odd(dice.choice(("bandwidth", "bandwidth", "site", "vlan")))
        value = dice.choice(VALUES) if name != "site" else dice.choice(("berlin-1", "hamburg-1", "moon-1", 7))
        return odd({"name": name, "value": value})

    def price() -> Any:
        money = odd({"unit": dice.choice(("EUR", "EUR", "CHF")), "value": dice.choice((0.1, 10, 99.99, 60_000, -5))})
        charge: dict[str, Any] = {"price": {"taxIncludedAmount": money, "dutyFreeAmount": odd({"value": 20})}}
        if dice.random() < 0.7:
            charge["recurringChargePeriod"] = odd(dice.choice(("month", "Day", "fortnight")))
        return odd(charge)

    def item(depth: int = 0) -> Any:
        listed = odd([characteristic() for _ in range(dice.randint(0, 3))])
        action = odd(dice.choice(("add", "add", "modify", "delete", "noChange")))
        made: dict[str, Any] = {"id": "1", "action": action, "product": odd({"productCharacteristic": listed})}
        if dice.random() < 0.3:
            made["quantity"] = dice.choice((1, 2, 150, 501, "7", 0, -3, 1.5))
        if dice.random() < 0.3:
            made[dice.choice(("itemPrice", "itemTotalPrice"))] = odd([price() for _ in range(dice.randint(0, 2))])
        if depth < 2 and dice.random() < 0.15:
            made["productOrderItem"] = odd([item(depth + 1)])
        return odd(made)

    asked: dict[str, Any] = {"productOrderItem": odd([item() for _ in range(dice.randint(0, 3))])}
    if dice.random() < 0.2:
        asked["orderTotalPrice"] = odd([price()])
    return dice.choice(
        (
            None,
            {"bandwidth": dice.choice(VALUES), "vlan": 100},
            asked,
            asked,
            {"productOrderItem": [item()], "bandwidth": dice.choice(VALUES)},
            {"callback": "https://listener.example/events", "query": "state=held"},
            dice.choice(VALUES),
        )
    )
