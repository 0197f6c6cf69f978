package tmf.limits_test

import data.main

order(bandwidth) := {
	"subject": {"id": "vendor", "tenant": "acme", "roles": ["csr"]},
	"action": "create",
	"resource": {"kind": "productOrder", "tenant": "acme"},
	"channel": "rest",
	"body": {"productOrderItem": [{"product": {"productCharacteristic": [
		{"name": "site", "value": "berlin-1"},
		{"name": "bandwidth", "value": bandwidth},
	]}}]},
}

intent(bandwidth) := {
	"subject": {"id": "convergedon", "tenant": "nobody", "roles": ["system"]},
	"action": "perform",
	"resource": {"kind": "intent", "tenant": "nobody"},
	"channel": "adapter",
	"body": {"bandwidth": bandwidth},
}

test_within_contract if main.decision.allow with input as order(5000)

test_above_contract_is_refused_with_figures if {
	reasons := main.decision.reasons with input as order(5001)
	reasons == ["bandwidth 5001 Mbit/s is above the 5000 Mbit/s of tenant acme's contract"]
}

test_text_is_left_to_the_plan if main.decision.allow with input as order("fast")

test_unnamed_tenant_has_the_common_contract if main.decision.allow with input as intent(1000)

test_device_is_not_touched_above_the_contract if not main.decision.allow with input as intent(1001)

test_removal_needs_no_bandwidth if main.decision.allow with input as object.union(intent(0), {"body": {}})

test_a_body_of_another_form_is_left_to_the_document if {
	every items in [null, 5, "x", [null], [{"product": null}], [{"product": {"productCharacteristic": null}}]] {
		main.decision.allow with input as object.union(order(1), {"body": {"productOrderItem": items}})
	}
}
