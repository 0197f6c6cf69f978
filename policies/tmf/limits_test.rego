package tmf.limits_test

import data.main

characteristics(bandwidth) := {"productCharacteristic": [
	{"name": "site", "value": "berlin-1"},
	{"name": "bandwidth", "value": bandwidth},
]}

order(bandwidth) := {
	"subject": {"id": "vendor", "tenant": "acme", "roles": ["csr"]},
	"action": "create",
	"resource": {"kind": "productOrder", "tenant": "acme"},
	"channel": "rest",
	"body": {"productOrderItem": [{"id": "1", "action": "add", "product": characteristics(bandwidth)}]},
}

ordering(items) := object.union(order(1), {"body": {"productOrderItem": items}})

intent(bandwidth) := {
	"subject": {"id": "convergedon", "tenant": "nobody", "roles": ["system"]},
	"action": "perform",
	"resource": {"kind": "intent", "tenant": "nobody", "device": "pe1", "deviceTenant": "nobody", "purpose": "order"},
	"channel": "adapter",
	"body": {"bandwidth": bandwidth},
}

test_within_contract if main.decision.allow with input as order(5000)

test_above_contract_is_refused_with_figures if {
	reasons := main.decision.reasons with input as order(5001)
	reasons == ["bandwidth 5001 Mbit/s is above the 5000 Mbit/s of tenant acme's contract"]
}

test_above_contract_is_refused_when_it_is_changed_and_when_it_is_begun if {
	every action in ["patch", "fulfil"] {
		not main.decision.allow with input as object.union(order(5001), {"action": action, "channel": "flow"})
	}
}

test_an_item_inside_another_counts if {
	inner := {"id": "2", "action": "add", "product": characteristics(5001)}
	outer := {"id": "1", "action": "add", "productOrderItem": [{"id": "3", "action": "add", "productOrderItem": [inner]}]}
	not main.decision.allow with input as ordering([outer])
}

test_what_is_ended_counts_nothing if {
	every action in ["delete", "noChange"] {
		main.decision.allow with input as ordering([{"id": "1", "action": action, "product": characteristics(5001), "quantity": 501}])
	}
}

test_text_is_left_to_the_plan if main.decision.allow with input as order("fast")

test_more_than_the_contract_allows_is_refused if {
	main.decision.allow with input as ordering([{"id": "1", "action": "add", "quantity": 499}, {"id": "2", "action": "add"}])
	reasons := main.decision.reasons with input as ordering([{"id": "1", "action": "add", "quantity": 499}, {"id": "2", "action": "add", "quantity": 2}])
	reasons == ["quantity 501 is above the 500 of tenant acme's contract"]
}

test_a_number_below_one_takes_nothing_away if {
	not main.decision.allow with input as ordering([{"id": "1", "action": "add", "quantity": 501}, {"id": "2", "action": "add", "quantity": -100}])
}

test_unnamed_tenant_has_the_common_contract if main.decision.allow with input as intent(1000)

test_device_is_not_touched_above_the_contract if not main.decision.allow with input as intent(1001)

test_without_a_contract_there_is_nothing if {
	reasons := main.decision.reasons with input as intent(1) with data.contracts as {}
	reasons == ["no contract says how much bandwidth tenant nobody may have"]
	ordered := main.decision.reasons with input as ordering([{"id": "1", "action": "add"}]) with data.contracts as {}
	ordered == ["no contract says how many of anything tenant acme may order"]
}

test_removal_needs_no_bandwidth if main.decision.allow with input as object.union(intent(0), {"body": null})

test_what_is_taken_back_may_be_above_a_contract_that_was_lowered if {
	main.decision.allow with input as object.union(intent(1001), {"resource": {"purpose": "undo"}})
}

test_a_body_of_another_form_is_left_to_the_document if {
	every items in [null, 5, "x", [null], [{"product": null}], [{"product": {"productCharacteristic": null}}]] {
		main.decision.allow with input as object.union(order(1), {"body": {"productOrderItem": items}})
	}
}
