package tmf.spend_test

import data.main

euros(value) := {"priceType": "recurring", "recurringChargePeriod": "month", "price": {
	"percentage": 5,
	"taxRate": 19,
	"taxIncludedAmount": {"unit": "EUR", "value": value},
}}

asked(action, body) := {
	"subject": {"id": "vendor", "tenant": "acme", "roles": ["csr", "system"]},
	"action": action,
	"resource": {"kind": "productOrder", "tenant": "acme"},
	"channel": "flow",
	"body": object.union({"productOrderItem": [{"id": "1", "action": "add"}]}, body),
}

item(more) := {"productOrderItem": [object.union({"id": "1", "action": "add"}, more)]}

test_within_the_cap if main.decision.allow with input as asked("create", {"orderTotalPrice": [euros(50000)]})

test_above_the_cap_is_refused_with_figures if {
	every action in ["create", "patch", "fulfil"] {
		reasons := main.decision.reasons with input as asked(action, {"orderTotalPrice": [euros(50000.01)]})
		reasons == ["the order comes to 50000.01 EUR a month, above the 50000 EUR of tenant acme's contract"]
	}
}

test_the_price_of_one_counts_as_often_as_it_is_ordered if {
	main.decision.allow with input as asked("create", item({"quantity": 100, "itemPrice": [euros(500)]}))
	not main.decision.allow with input as asked("create", item({"quantity": 101, "itemPrice": [euros(500)]}))
}

test_an_items_total_counts_once if {
	main.decision.allow with input as asked("create", item({"quantity": 101, "itemTotalPrice": [euros(500)]}))
	not main.decision.allow with input as asked("create", item({"itemTotalPrice": [euros(30000), euros(20000.01)]}))
}

test_items_add_up if {
	half := {"id": "1", "action": "add", "itemPrice": [euros(25000.01)]}
	not main.decision.allow with input as asked("create", {"productOrderItem": [half, half]})
}

test_fractions_add_up_exactly if {
	main.decision.allow with input as asked("create", {"orderTotalPrice": [euros(0.1), euros(0.2)]})
		with data.contracts as {"acme": {"monthly": 0.3, "quantity": 1}}
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [euros(0.1), euros(0.2)]})
		with data.contracts as {"acme": {"monthly": 0.299, "quantity": 1}}
}

test_the_larger_amount_counts if {
	both := {"price": {"dutyFreeAmount": {"unit": "EUR", "value": 50001}, "taxIncludedAmount": {"value": 1}}}
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [both]})
}

test_a_discount_takes_nothing_away_and_a_surcharge_adds if {
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [euros(50001), euros(-50000)]})
	surcharged := object.union(euros(50000), {"priceAlteration": [euros(0.01)]})
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [surcharged]})
}

daily(value) := object.union(euros(value), {"recurringChargePeriod": "Day"})

test_what_is_charged_each_day_counts_for_a_month if {
	main.decision.allow with input as asked("create", {"orderTotalPrice": [daily(1612)]})
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [daily(1613)]})
}

test_a_period_that_is_none_is_refused if {
	reasons := main.decision.reasons with input as asked("create", {"orderTotalPrice": [object.union(euros(1), {"recurringChargePeriod": "now and then"})]})
	count(reasons) == 1
	startswith(reasons[0], "now and then is no period of a price: say one of annual, daily, day")
}

test_another_currency_is_refused if {
	reasons := main.decision.reasons with input as asked("create", {"orderTotalPrice": [{"price": {"taxIncludedAmount": {"unit": "USD", "value": 1}}}]})
	reasons == ["prices of tenant acme's contract are in EUR, so USD cannot be held against it"]
}

test_a_price_beyond_all_measure_is_refused if {
	not main.decision.allow with input as asked("create", {"orderTotalPrice": [euros(1000000000000)]})
}

test_what_is_ended_costs_nothing if {
	main.decision.allow with input as asked("create", item({"action": "delete", "itemPrice": [euros(50001)]}))
}

test_without_a_cap_nothing_may_be_spent if {
	reasons := main.decision.reasons with input as asked("create", {"orderTotalPrice": [euros(1)]})
		with data.contracts as {"acme": {"quantity": 1}}
	reasons == ["no contract says how much tenant acme may spend in a month"]
}
