"""What a filter chooses (TMF630 part 1 filtering, part 6 JSONPath): from resources in a store, and from events."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Invalid, Unsupported
from convergedon.core.matching import matches
from convergedon.handlers.documents import shape
from convergedon.handlers.query import check_event_query, event_fields, event_matches, parse, select

ORDER = shape("TMF622-ProductOrdering-v4", "ProductOrder")
ALARM = shape("TMF642-Alarm-v4", "Alarm")
VALUE = "productOrderItem.product.productCharacteristic.value"


def _item(quantity: int, value: Any) -> dict[str, Any]:
    return {"quantity": quantity, "product": {"productCharacteristic": [{"name": "speed", "value": value}]}}


ORDERS: dict[str, dict[str, Any]] = {
    "a": {
        "state": "held",
        "description": "Fibre, 100 m; 'east' wing",
        "orderDate": "2026-02-20T09:30:00Z",
        "note": [{"author": "Ann", "text": "first"}, {"author": "Bob", "text": "second"}],
        "relatedParty": [{"id": "x", "role": "customer"}, {"id": "y", "role": "seller"}],
        "productOrderItem": [_item(1, 100), _item(3, "100")],
    },
    "b": {
        "state": "pending",
        "description": "fibre",
        "orderDate": "2026-02-20T10:30:00.001+01:00",
        "note": [{"author": "Bob", "text": "first", "date": "2026-01-01T00:00:00Z"}],
        "relatedParty": [{"id": "x", "role": "seller"}, {"id": "z", "role": "customer"}],
        "productOrderItem": [_item(2, True)],
    },
    "c": {"state": "completed", "orderDate": "2026-02-20T00:00:00-02:00", "productOrderItem": [_item(10, "high")]},
}


def chosen(text: str) -> str:
    """The ids of the orders that a query string chooses."""
    where = parse(parse_qsl(text, keep_blank_values=True), ORDER).where
    documents = [{"id": id, "body": body, "facts": {"at": ORDER.instants(body)}} for id, body in ORDERS.items()]
    return "".join(document["id"] for document in documents if matches(document, where))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("state=held", "a"),
        ("state.eq=held", "a"),
        ("state%3D%3Dheld", "a"),
        ("state==held", "a"),
        ("state.ne=held", "bc"),
        ("state.ne=held,pending", "c"),
        ("state=held,pending", "ab"),
        ("state=held;pending", "ab"),
        ("state=held;state=pending", "ab"),
        ("state=held%3Bstate%3Dpending", "ab"),
        ("state=held&state=pending", "ab"),
        ("state=held;description=fibre", "ab"),
        ("state=held;productOrderItem.quantity.gte=10", "ac"),
        ("state=held&description=fibre", ""),
        ("description='Fibre, 100 m; 'east' wing'", "a"),
        ('description="Fibre, 100 m; \'east\' wing","fibre"', "ab"),
        ("description.ne=fibre", "ac"),
        ("description.regex=[Ff]ib.e", "ab"),
        ("description.regex=^fib", "b"),
        ("description*=m; 'e", "a"),
        ("description%3D~^f", "b"),
        ("description*%3D^f", "b"),
        ("orderDate=2026-02-20T09:30:00Z", "a"),
        ("orderDate=2026-02-20T10:30:00.000%2B01:00", "a"),
        ("orderDate=2026-02-20T10:30:00+01:00", "a"),
        ("orderDate.ne=2026-02-20T09:30:00.000Z", "bc"),
        ("orderDate.gt=2026-02-20T09:30:00Z", "b"),
        ("orderDate.gte=2026-02-20T09:30:00Z", "ab"),
        ("orderDate.lt=2026-02-20T02:00:00.000001Z", "c"),
        ("orderDate%3E2026-02-20", "abc"),
        ("orderDate%3E%3D2026-02-20T09:30:00", "ab"),
        ("orderDate>=2026-02-20T09:30:00", "ab"),
        ("orderDate%3C2026-02-20T09:30:00Z", "c"),
        ("orderDate<=2026-02-20T09:30:00Z", "ac"),
        ("orderDate.gte=2026-02-20T02:00:00Z&orderDate.lt=2026-02-20T09:30:00.001Z", "ac"),
        ("note.date.lt=2026-06-01", "b"),
        ("note.author=Ann", "a"),
        ("note.author.ne=Ann", "bc"),
        ("note.author=Bob&note.text=first", "ab"),
        ("productOrderItem.quantity=1", "a"),
        ("productOrderItem.quantity=1.0", "a"),
        ("productOrderItem.quantity.gt=2", "ac"),
        ("productOrderItem.quantity.gte=9,2", "abc"),
        ("productOrderItem.quantity.lt=2", "a"),
        (f"{VALUE}=100", "a"),
        (f"{VALUE}='100'", "a"),
        (f"{VALUE}=true", "b"),
        (f"{VALUE}.gt=99", "ac"),
        (f"{VALUE}.lt=101", "a"),
        (f"{VALUE}.regex=^h", "c"),
        ("id=a,c", "ac"),
        ("id.ne=a", "bc"),
        ("href=https://gw/tmf-api/productOrderingManagement/v4/productOrder/b", "b"),
    ],
)
def test_a_filter_chooses(text: str, ids: str) -> None:
    """Every operator, every way to say or, instants whatever their offset, numbers as numbers, any element."""
    assert chosen(text) == ids


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("$[?(@.state=='held')]", "a"),
        ("[?(@.state=='held')]", "a"),
        ("[?@.state=='held']", "a"),
        ("@.state == 'held'", "a"),
        ('$[?(@["state"]=="held")]', "a"),
        ("$[?(@.state!='held')]", "bc"),
        ("$[?('held'==@.state)]", "a"),
        ("$[?(@.state=='held' || @.state=='pending')]", "ab"),
        ("$[?(@.state=='held' && @.description=='fibre')]", ""),
        ("$[?(!(@.state=='held'))]", "bc"),
        ("$[?(!@.description)]", "c"),
        ("$[?(@.note.date)]", "b"),
        ("$[?(@.id)]", "abc"),
        ("$[?(@.note[*].author=='Ann')]", "a"),
        ("$[?(@.note.author=='Ann')]", "a"),
        ("$[?(@.relatedParty[?(@.role=='customer' && @.id=='x')])]", "a"),
        ("$[?(!@.relatedParty[?(@.role=='customer' && @.id=='x')])]", "bc"),
        ("$[?(@.note[?(@.author=='Ann' || @.text=='first')])]", "ab"),
        ("$[?(@.note[?(!@.date && @.text=='first')])]", "a"),
        ("$[?(@.note[?(@.author =~ /b/i && @.text=='first')])]", "b"),
        ("$[?(@.productOrderItem[?(@.product.productCharacteristic[?(@.name=='speed' && @.value>=100)])])]", "a"),
        ("$[?(@.productOrderItem.quantity > 2)]", "ac"),
        ("$[?(2 < @.productOrderItem.quantity)]", "ac"),
        ("$[?(@.orderDate >= '2026-02-20T10:30:00+01:00')]", "ab"),
        ("$[?(@.description =~ /^F/)]", "a"),
        ("$[?(@.description =~ /^F/i)]", "ab"),
        ("$[?match(@.description, 'f.*e')]", "b"),
        ("$[?search(@.description, 'ib')]", "ab"),
        (f"$[?(@.{VALUE} == 100)]", "a"),
        (f"$[?(@.{VALUE} == true)]", "b"),
    ],
)
def test_a_jsonpath_filter_chooses(expression: str, ids: str) -> None:
    """Comparisons, logic, existence; a filter in a filter means one and the same element."""
    assert chosen(f"filter={quote(expression)}") == ids
    assert chosen(f"filter={quote(expression)}&state=held") == ("a" if "a" in ids else "")


@pytest.mark.parametrize(("sign", "ids"), [("||", "a"), ("&&", "")])
def test_a_long_row_of_conditions_is_not_deep(sign: str, ids: str) -> None:
    """Alternatives stand beside each other, also where the library nests them one in another."""
    tests = [*(f"@.state=='x{number}'" for number in range(150)), "@.state=='held'"]

    assert chosen(f"filter={quote(f'$[?({sign.join(tests)})]')}") == ids


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=red", "no attribute colour"),
        ("colour.gt=1", "no attribute colour"),
        ("colour%3E1", "no attribute colour"),
        ("%3E1", "no attribute"),
        ("filter=@.colour", "no attribute colour"),
        ("filter=@.note[?(@.colour=='x')]", "no attribute note.colour"),
        ("relatedParty=x", "relatedParty is an object"),
        ("orderDate=yesterday", "orderDate is a date-time"),
        ("filter=@.orderDate > 'x'", "orderDate is a date-time"),
        ("productOrderItem.quantity=many", "productOrderItem.quantity is a number"),
        ("productOrderItem.quantity.gt=1e999", "productOrderItem.quantity is a number"),
        ("productOrderItem.quantity=NaN", "productOrderItem.quantity is a number"),
        ("filter=@.productOrderItem.quantity=='2'", "productOrderItem.quantity is a number"),
        ("filter=@.state==2", "state is a text"),
        ("productOrderItem.quantity.regex=1", "quantity is no text"),
        ("description.regex=(", "refused: missing )"),
        (r"description.regex=(a)\1", "refused: invalid escape"),
        ("description.regex=(?=a)", "refused: invalid perl operator"),
        ("description.regex=" + "a" * 201, "at most 200 characters"),
        ("filter=@.state=='held", "not a JSONPath expression"),
        ("filter=" + "(" * 600 + "@.state" + ")" * 600, "not a JSONPath expression"),
        ("filter=" + "!" * 60 + "@.state", "nests deeper"),
        ("filter=" + "x" * 5000, "at most 4096 characters"),
        ("filter=@.state[?(@.x=='y')]", "state"),
        ("filter=$", "must have a filter selector"),
        ("state=" + "a," * 1001, "more than 1000 values"),
        ("sort=" + ",".join(sorted(ORDER.creatable)), "at most 8"),
        (f"{VALUE}.$where=1", "no attribute"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str, said: str) -> None:
    """A slip must not read as an empty list: the answer says which parameter, and why."""
    with pytest.raises(Invalid) as refused:
        chosen(text)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    "expression",
    [
        "$..state",
        "$[0]",
        "$[?(@.state=='held')].id",
        "$[?(@.note[0].text=='first')]",
        "$[?(@.state==@.category)]",
        "$[?(length(@.note)>1)]",
        "$[?(@.state in ['held'])]",
        "$[?(@.state==null)]",
        "$[?(@.state=='held')] | $[?(@.state=='pending')]",
        "$[?(@.note[?(@.date>'2026-01-01')])]",
        "$[?($.state=='held')]",
        "$[?(1==1)]",
    ],
)
def test_jsonpath_beyond_the_part_taken_is_said_to_be(expression: str) -> None:
    """501 says what is not supported, which a client must be able to tell from a mistake of its own (TMF630 part 6)."""
    with pytest.raises(Unsupported) as refused:
        chosen(f"filter={quote(expression)}")

    assert "support" in str(refused.value) or "filter" in str(refused.value) or "date-times" in str(refused.value)


NAMES = st.sampled_from(["state", "orderDate", "productOrderItem.quantity", VALUE, "filter", "sort", "fields", "id.gt"])


@given(st.lists(st.tuples(NAMES | st.text(), st.text() | st.floats().map(str)), max_size=4))
def test_any_parameters_are_read_or_refused(parameters: list[tuple[str, str]]) -> None:
    """Whatever a client sends is a query, a 400 or a 501: never an error of ours."""
    with suppress(Invalid, Unsupported):
        parse(parameters, ORDER)


@given(st.text("@$[]?()='\"&|!<>~/.,*ab1 \\", max_size=40))
def test_any_expression_is_read_or_refused(expression: str) -> None:
    with suppress(Invalid, Unsupported):
        parse([("filter", expression)], ORDER)


def test_nested_fields_select_nested_members() -> None:
    """Of each element of an array the named members alone; id and href are kept at the top only."""
    body = {"id": "1", "href": "x", "state": "held", "note": [{"id": "n", "text": "t", "author": "a"}, {"author": "b"}]}

    wanted = parse([("fields", "note.text")], ORDER).fields
    assert select(body, wanted) == {"id": "1", "href": "x", "note": [{"text": "t"}, {}]}
    wanted = parse([("fields", "note.text,note"), ("fields", "state")], ORDER).fields
    assert select(body, wanted) == body


@given(st.datetimes(), st.sampled_from(["Z", "+00:00", "+05:30", "-23:59", "+23:59", ""]))
def test_instants_exist_from_the_first_year_to_the_last(time: Any, offset: str) -> None:
    """Whatever offset a date-time has, at both ends of the calendar too, it is a number and never an error."""
    body = {"orderDate": time.isoformat() + offset, "note": [{"date": time.isoformat() + "Z"}, {"date": "x"}, {}]}

    at = ORDER.instants(body)
    assert isinstance(at["orderDate"], int)
    assert len(at["note"]["date"]) == 1
    if offset in ("Z", "+00:00", ""):
        assert at["note"]["date"] == [at["orderDate"]]


def test_instants_mirror_the_body() -> None:
    """Arrays on the way collapse; what is no date-time is left out, and nothing at all is an empty answer."""
    item = {"product": {"startDate": "1970-01-01T00:00:01Z", "product": [{"startDate": "1970-01-01T00:00:02Z"}]}}
    second = 1_000_000

    assert ORDER.instants({"productOrderItem": [item, item], "state": "held", "orderDate": 7}) == {
        "productOrderItem": {"product": {"startDate": [second] * 2, "product": {"startDate": [2 * second] * 2}}}
    }
    assert ORDER.instants({"orderDate": "1970-01-01T00:00:00Z"}) == {"orderDate": 0}
    assert ORDER.instants({"orderDate": "2016-12-31T23:59:60Z"}) == ORDER.instants(
        {"orderDate": "2017-01-01T00:00:00Z"}
    )
    assert ORDER.instants({}) == {}


EVENT = {
    "eventId": "e1",
    "eventType": "AlarmCreateEvent",
    "eventTime": "2026-02-20T09:30:00.000Z",
    "event": {
        "alarm": {
            "id": "1",
            "perceivedSeverity": "major",
            "alarmRaisedTime": "2026-02-20T10:30:00+01:00",
            "serviceAffecting": True,
            "comment": [{"userId": "a", "comment": "x"}, {"userId": "b", "comment": "y"}],
        }
    },
}


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("eventType=AlarmCreateEvent&event.alarm.perceivedSeverity=critical,major", True),
        ("perceivedSeverity=critical;perceivedSeverity=major", True),
        ("perceivedSeverity.ne=major", False),
        ("perceivedSeverity.regex=^m", True),
        ("alarmRaisedTime=2026-02-20T09:30:00Z", True),
        ("event.alarm.alarmRaisedTime.gt=2026-02-20T09:29:59Z", True),
        ("alarmRaisedTime%3E2026-02-20T09:30:00Z", False),
        ("eventTime.gte=2026-02-20", True),
        ("filter=$[?(@.event.alarm.perceivedSeverity=='major')]", True),
        ("filter=$[?(@.perceivedSeverity=='major' %26%26 @.serviceAffecting==true)]", True),
        ("filter=$[?(@.comment[?(@.userId=='a' %26%26 @.comment=='y')])]", False),
        ("filter=$[?(@.comment[?(@.userId=='b' %26%26 @.comment=='y')])]", True),
        ("filter=$[?(!@.colour)]", True),
        ("fields=perceivedSeverity", True),
    ],
)
def test_a_listener_hears_what_its_query_says(query: str, passes: bool) -> None:
    """A subscription's query has the grammar of a list's; paths begin at the event or at its resource."""
    check_event_query(query)
    assert event_matches(query, EVENT) is passes


@pytest.mark.parametrize(
    "query",
    [
        "description.regex=(",
        "filter=@.x==",
        "colour=red",
        "serviceAffecting=maybe",
        "alarmRaisedTime.gt=soon",
        "fields=colour",
        "fields=state,event.alarm.comment.colour",
    ],
)
def test_a_listener_that_could_hear_nothing_is_told_so(query: str) -> None:
    """At registration, when somebody reads the answer, and not at every event."""
    with pytest.raises(Invalid):
        check_event_query(query, [ALARM, shape("TMF642-Alarm-v4", "AlarmCreateEvent")])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "eventType=AlarmCreateEvent",
        "event.alarm.state=raised",
        "state.ne=cleared",
        "fields=state",
        "fields=none",
        "fields=event.alarm.comment.userId",
    ],
)
def test_a_listener_may_name_the_event_and_its_resource(query: str) -> None:
    check_event_query(query, [ALARM, shape("TMF642-Alarm-v4", "AlarmCreateEvent")])


def test_a_listener_chooses_members() -> None:
    """fields in a subscription selects members of the resource, named from the event or from the resource."""
    wanted = event_fields("eventType=AlarmCreateEvent&fields=event.alarm.perceivedSeverity,comment.userId")

    assert select({"href": "x", **EVENT["event"]["alarm"]}, wanted) == {  # type: ignore[index]
        "id": "1",
        "href": "x",
        "perceivedSeverity": "major",
        "comment": [{"userId": "a"}, {"userId": "b"}],
    }
    assert event_fields("eventType=AlarmCreateEvent") is None
