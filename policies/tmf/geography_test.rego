package tmf.geography_test

import data.main

order(channel, action, site) := {
	"subject": {"id": "vendor", "tenant": "acme", "roles": ["csr", "system"]},
	"action": action,
	"resource": {"kind": "productOrder", "tenant": "acme"},
	"channel": channel,
	"body": {"productOrderItem": [{"id": "1", "action": "add", "product": {"productCharacteristic": [{"name": "site", "value": site}]}}]},
}

begun(sites) := object.union(order("flow", "fulfil", "berlin-1"), {"body": {"productOrderItem": []}, "resource": {"sites": sites}})

intent(more) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": "perform",
	"resource": object.union({"kind": "intent", "tenant": "acme", "device": "pe1", "deviceTenant": "acme", "purpose": "order"}, more),
	"channel": "adapter",
	"body": {},
}

countries := {"acme": {"berlin-1": "DE", "basel-1": "CH"}}

only(served) := {"countries": countries, "devices": {"pe7": "CH"}, "served": served}

germany := only({"acme": {"countries": ["DE"], "sites": []}})

test_without_a_word_every_site_is_served if {
	main.decision.allow with input as order("flow", "create", "nowhere")
	main.decision.allow with input as intent({"site": "nowhere"})
}

test_a_site_in_another_country_is_refused_on_every_path if {
	questions := [order("flow", "create", "basel-1"), order("flow", "patch", "basel-1"), begun(["basel-1"]), intent({"site": "basel-1"})]
	every question in questions {
		reasons := main.decision.reasons with input as question with data.geography as germany
		reasons == ["tenant acme may not be served at site basel-1"]
	}
}

test_a_site_in_the_country_is_served if {
	questions := [order("flow", "create", "berlin-1"), begun(["berlin-1"]), intent({"site": "berlin-1"})]
	every question in questions {
		main.decision.allow with input as question with data.geography as germany
	}
}

test_a_site_may_be_served_by_its_name if {
	served := only({"*": {"countries": ["DE"], "sites": ["basel-1"]}})
	main.decision.allow with input as order("flow", "create", "basel-1") with data.geography as served
}

test_a_site_that_is_in_no_country_is_refused if {
	not main.decision.allow with input as order("flow", "create", "nowhere") with data.geography as germany
}

test_a_change_that_does_not_say_where_is_refused if {
	reasons := main.decision.reasons with input as intent({}) with data.geography as germany
	reasons == ["tenant acme is served at certain sites only, and it is not said at which this is"]
}

test_a_device_counts_whatever_site_is_named if {
	reasons := main.decision.reasons with input as intent({"site": "berlin-1", "device": "pe7"}) with data.geography as germany
	reasons == ["tenant acme may not be served on device pe7"]
}

test_what_is_there_can_be_ended if {
	main.decision.allow with input as object.union(intent({"site": "basel-1"}), {"body": null}) with data.geography as germany
	main.decision.allow with input as intent({"site": "basel-1", "purpose": "undo"}) with data.geography as germany
}
