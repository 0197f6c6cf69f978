package tmf.privacy_test

import data.main

told(roles, party, parties) := {
	"subject": {"id": "x", "tenant": "acme", "roles": roles, "party": party},
	"action": "receive",
	"resource": {"kind": "event", "tenant": "acme", "of": "productOrder", "type": "ProductOrderCreateEvent", "parties": parties},
	"channel": "delivery",
}

private := {"redact", "mask"}

test_who_only_watches_hears_no_personal_data if {
	every role in ["noc", "reader", "mediation"] {
		decision := main.decision with input as told([role], null, ["northwind"])
		decision.allow
		object.keys(decision.obligations) == private
		"relatedParty.name" in decision.obligations.redact
		decision.obligations.mask == ["email", "phone", "iban"]
	}
}

test_who_works_with_customers_hears_it_whole if {
	every role in ["csr", "billing", "admin"] {
		decision := main.decision with input as told([role], null, ["northwind"])
		decision.obligations == {}
	}
}

test_a_customer_hears_its_own_whole if {
	decision := main.decision with input as told(["customer"], "northwind", ["northwind"])
	decision.allow
	decision.obligations == {}
}

test_a_customer_hears_no_personal_data_of_others if {
	decision := main.decision with input as told(["customer"], "northwind", ["contoso", "northwind"])
	decision.allow
	object.keys(decision.obligations) == private
}

test_what_holds_no_personal_data_is_told_whole if {
	decision := main.decision with input as object.union(told(["noc"], null, []), {"resource": {"of": "physicalResource"}})
	decision.obligations == {}
}

test_a_notification_is_masked_when_it_is_made if {
	made := {
		"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
		"action": "tell",
		"resource": {"kind": "customerNotification", "tenant": "acme", "parties": ["northwind"]},
		"channel": "flow",
		"body": {},
	}
	decision := main.decision with input as made
	decision.allow
	decision.obligations == {"redact": [], "mask": ["email", "phone", "iban"]}
}
