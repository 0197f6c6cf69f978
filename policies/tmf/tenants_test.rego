package tmf.tenants_test

import data.main

system := {"id": "convergedon", "tenant": "acme", "roles": ["system"]}

asked(channel, resource) := {
	"subject": system,
	"action": "perform",
	"resource": object.union({"kind": "intent", "tenant": "acme", "purpose": "undo"}, resource),
	"channel": channel,
	"environment": {"time": 1764140000},
}

pe1 := {"device": "pe1", "deviceTenant": "acme"}

pe3 := {"device": "pe3", "deviceTenant": "globex"}

test_own_device if main.decision.allow with input as asked("adapter", pe1)

test_a_device_of_another_tenant_is_not_touched if {
	main.decision.reasons == ["device pe3 is none of tenant acme's"] with input as asked("adapter", pe3)
}

test_a_device_that_nobody_knows_is_not_touched if {
	not main.decision.allow with input as asked("adapter", {"device": "pe9"})
	not main.decision.allow with input as asked("adapter", {"device": "pe9"}) with data.shared as {"pe9": ["acme"]}
}

test_a_shared_device_serves_those_it_is_shared_with if {
	main.decision.allow with input as asked("adapter", pe3) with data.shared as {"pe3": ["acme"]}
	not main.decision.allow with input as asked("adapter", pe3) with data.shared as {"pe3": ["initech"]}
}

test_what_is_another_tenants_is_out_of_reach_on_every_path if {
	every channel in ["rest", "console", "delivery", "task", "flow", "adapter"] {
		reasons := main.decision.reasons with input as asked(channel, object.union(pe3, {"tenant": "globex"}))
		"this belongs to another tenant" in reasons
	}
}

test_what_the_gateway_does_by_itself_is_somebodys if {
	every channel in ["delivery", "flow", "adapter"] {
		reasons := main.decision.reasons with input as asked(channel, {"tenant": ""})
		"it is not said whose this is" in reasons
	}
}

test_nothing_is_done_for_somebody_of_another_tenant if {
	owner := {"id": "vendor", "tenant": "globex", "roles": ["csr"]}
	main.decision.reasons == ["who asked for this is of another tenant"] with input as asked("flow", {"owner": owner})
}

test_who_has_no_tenant_reaches_nothing if {
	every nobody in [object.remove(system, ["tenant"]), object.union(system, {"tenant": ""}), object.union(system, {"tenant": null})] {
		question := object.union(object.remove(asked("task", {}), ["subject"]), {"subject": nobody})
		"the token names no tenant" in main.reasons with input as question
		not main.decision.allow with input as question
	}
}
