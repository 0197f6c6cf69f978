"""TMF622 Product Ordering v5, over the orders of v4: what the two versions call differently, schema by schema.

What v5 has beyond v4 is kept beside the orders (``versions``). A draft is a state that only v5 has a word for: v4 shows
it as pending, as it waits for the customer.
"""

from __future__ import annotations

from typing import Any

from convergedon.handlers.product_ordering import API as V4
from convergedon.handlers.resource import HUB, Api, Body
from convergedon.handlers.versions import (
    Begins,
    Enclosed,
    Follows,
    Form,
    Listed,
    Only,
    Opened,
    Renamed,
    Rules,
    Supplied,
    Usual,
    Valued,
    Version,
)

DOCUMENT = "TMF622-ProductOrdering-v5"
REFERENCE = frozenset(
    ("id", "href", "name", "@type", "@baseType", "@schemaLocation", "@referredType", "partyId", "partyName")
)

_ORDER_ITEM_REF = (Renamed("orderId", "productOrderId"), Renamed("orderHref", "productOrderHref"))
_AGREEMENT = (Renamed("agreementId", "id"), Renamed("agreementHref", "href"), Renamed("agreementName", "name"))
_PARTY = (Supplied("@referredType", "Party", where="id"), Enclosed("partyOrPartyRole", outside=("role",)))
_NEWS = ("orderRelationship", "productOrderErrorMessage", "productOrderJeopardyAlert", "productOrderMilestone")


def _error_messages(body: Body) -> list[dict[str, Any]]:
    """What v4 has as the gateway's notes on what went wrong."""
    notes = [note for note in body.get("note") or [] if note.get("author") == "ConvergedON"]
    return [
        {"code": "orderFailed", "reason": "Failed", "message": note["text"], "timestamp": note["date"]}
        for note in notes
        if str(note.get("id", "")).startswith("failure-")
    ]


RULES: Rules = {
    "ProductOrder": (
        Follows("productOrderErrorMessage", _error_messages),
        Renamed("creationDate", "orderDate"),
        Listed("externalId", "id"),
        Begins("requestedInitialState", "draft", "state"),
        Only(_NEWS),
    ),
    "ProductOrderItem": (Only(("note",)), Valued("state", {"draft": "pending"})),
    "BillingAccountRef": (Only(("ratingType",)),),
    "RelatedPartyRefOrPartyRoleRef": _PARTY,
    "RelatedPartyOrPartyRole": _PARTY,
    "RelatedChannel": (Enclosed("channel", outside=("role",)),),
    "RelatedPlaceRefOrValue": (Enclosed("place", outside=("role",)),),
    "ProductOfferingQualificationItemRef": (Renamed("itemId", "id"),),
    "QuoteItemRef": (Renamed("quoteItemId", "id"),),
    "Product": (Renamed("agreementItem", "agreement"), Only(("creationDate", "intent"))),
    "AgreementItemRef": _AGREEMENT,
    "ProductPrice": (Renamed("priceAlteration", "productPriceAlteration"),),
    "ProductRelationship": (Opened("product", outside=("relationshipType",)),),
    "RelatedOrderItem": _ORDER_ITEM_REF,
}


def _party(body: Body) -> str:
    return "PartyRoleRef" if body.get("@referredType") == "PartyRole" else "PartyRef"


def _place(body: Body) -> str:
    return "PlaceRef" if "id" in body else "Place"


def _reference_or(value: str) -> Usual:
    return lambda body: f"{value}Ref" if "id" in body and body.keys() <= REFERENCE else value


def _characteristic(body: Body) -> str:
    """The kind of characteristic that has such a value."""
    value = body.get("value")
    if not isinstance(value, list):
        return f"{_scalar(value)}Characteristic"
    kinds = {_scalar(one) for one in value}
    kinds = {"Number"} if kinds == {"Number", "Integer"} else kinds
    return f"{kinds.pop()}ArrayCharacteristic" if len(kinds) == 1 and kinds != {""} else "Characteristic"


def _scalar(value: Any) -> str:
    kinds = ((bool, "Boolean"), (int, "Integer"), (float, "Number"), (str, "String"), (dict, "Object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "")


USUAL = {
    "PartyRefOrPartyRoleRef": _party,
    "PartyOrPartyRole": _party,
    "PlaceRefOrValue": _place,
    "GeographicLocationRefOrValue": _reference_or("GeographicLocation"),
    "ProductRefOrValue": _reference_or("Product"),
    "IntentRefOrValue": _reference_or("Intent"),
    "AttachmentRefOrValue": _reference_or("Attachment"),
    "AnyCharacteristic": _characteristic,
}

FORM = Form(DOCUMENT, RULES, USUAL)

API = Api(
    DOCUMENT,
    "/tmf-api/productOrderingManagement/v5",
    V4.resources,
    {
        **{resource.name: Version(FORM, resource.schema, V4.document) for resource in V4.resources},
        HUB.name: Version(FORM, "Hub", V4.document),
    },
)
