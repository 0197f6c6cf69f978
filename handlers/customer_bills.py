"""TMF678 Customer Bill Management v4."""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource, now, related_parties


def _one_party(body: Body) -> list[str]:
    """The customer of an on-demand bill: v4 has a single relatedParty there."""
    party = body.get("relatedParty")
    return [party["id"]] if isinstance(party, dict) and "id" in party else related_parties(body) if party else []


CUSTOMER_BILL = Resource(
    "customerBill",
    "CustomerBill",
    lifecycle=LIFECYCLES["customerBill"],
    indexes=("body.relatedParty.id", ("facts.at.billDate", "id"), "body.state"),
    changed=lambda _: {"lastUpdate": now()},
)
CUSTOMER_BILL_ON_DEMAND = Resource(
    "customerBillOnDemand",
    "CustomerBillOnDemand",
    new=lambda _: {"state": "inProgress", "lastUpdate": now()},
    parties=_one_party,
    lifecycle=LIFECYCLES["customerBillOnDemand"],
    changed=lambda _: {"lastUpdate": now()},
)
APPLIED_CUSTOMER_BILLING_RATE = Resource(
    "appliedCustomerBillingRate", "AppliedCustomerBillingRate", parties=lambda _: [], indexes=("body.bill.id",)
)

API = Api(
    "TMF678-CustomerBill-v4",
    "/tmf-api/customerBillManagement/v4",
    (CUSTOMER_BILL, CUSTOMER_BILL_ON_DEMAND, APPLIED_CUSTOMER_BILLING_RATE),
)
