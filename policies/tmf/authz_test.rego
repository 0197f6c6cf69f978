package tmf.authz_test

import data.main
import data.tmf.authz

csr := {"id": "vendor", "tenant": "acme", "roles": ["csr"]}

customer := {"id": "northwind-app", "tenant": "acme", "roles": ["customer"], "party": "northwind"}

asked(subject, action, resource) := {"subject": subject, "action": action, "resource": resource, "body": null, "channel": "rest"}

test_csr_creates_orders if {
	main.decision.allow with input as asked(csr, "create", {"kind": "productOrder", "tenant": "acme"})
}

test_csr_asks_to_cancel_orders if {
	main.decision.allow with input as asked(csr, "create", {"kind": "cancelProductOrder", "tenant": "acme"})
}

test_customer_cancels_nothing_itself if {
	every action in ["create", "list", "retrieve"] {
		not main.decision.allow with input as asked(customer, action, {"kind": "cancelProductOrder", "tenant": "acme"})
	}
}

test_only_noc_works_on_many_alarms if {
	noc := {"id": "mara", "tenant": "acme", "roles": ["noc"]}
	every kind in ["ackAlarms", "unAckAlarms", "clearAlarms", "commentAlarms", "groupAlarms", "unGroupAlarms"] {
		main.decision.allow with input as asked(noc, "create", {"kind": kind, "tenant": "acme"})
		not main.decision.allow with input as asked(csr, "create", {"kind": kind, "tenant": "acme"})
	}
}

test_csr_touches_no_alarm if {
	not main.decision.allow with input as asked(csr, "delete", {"kind": "alarm", "tenant": "acme"})
}

test_refusal_names_role_and_action if {
	reasons := main.decision.reasons with input as asked(csr, "delete", {"kind": "alarm", "tenant": "acme"})
	reasons == ["none of the roles [csr] may delete a alarm"]
}

test_other_tenant_is_out_of_reach if {
	reasons := main.decision.reasons with input as asked(csr, "retrieve", {"kind": "productOrder", "tenant": "globex"})
	reasons == ["this belongs to another tenant"]
}

test_customer_sees_its_own if {
	main.decision.filter == {"tenant": "acme", "parties": ["northwind"]} with input as asked(customer, "list", {"kind": "productOrder", "tenant": "acme"})
}

test_customer_hears_nothing_of_others if {
	not main.decision.allow with input as asked(customer, "receive", {"kind": "event", "tenant": "acme", "parties": ["contoso"]})
}

test_customer_hears_of_itself if {
	main.decision.allow with input as asked(customer, "receive", {"kind": "event", "tenant": "acme", "parties": ["northwind"]})
}

test_customer_without_party_is_refused if {
	nobody := object.remove(customer, ["party"])
	reasons := main.decision.reasons with input as asked(nobody, "list", {"kind": "productOrder", "tenant": "acme"})
	reasons == ["a customer's token must name its party"]
}

test_a_token_without_tenant_reaches_nothing if {
	reasons := main.decision.reasons with input as asked(object.remove(csr, ["tenant"]), "list", {"kind": "productOrder"})
	reasons == ["the token names no tenant"]
}

test_no_role_no_way if {
	not main.decision.allow with input as asked({"id": "x", "tenant": "acme", "roles": []}, "list", {"kind": "productOrder", "tenant": "acme"})
}

test_wider_role_is_not_narrowed if {
	both := object.union(customer, {"roles": ["customer", "csr"]})
	main.decision.filter == {"tenant": "acme"} with input as asked(both, "list", {"kind": "productOrder", "tenant": "acme"})
}

test_roles_that_are_no_list_grant_nothing if {
	every roles in [null, 1, "admin", true, {}, [null, 1]] {
		reasons := main.decision.reasons with input as asked({"id": "x", "tenant": "acme", "roles": roles}, "list", {"kind": "alarm", "tenant": "acme"})
		reasons == ["none of the roles [] may list a alarm"]
	}
}

test_empty_question_is_refused if {
	not main.decision.allow with input as {}
}

test_granting_roles_are_named if {
	authz.granting_roles == {"csr"} with input as asked(csr, "create", {"kind": "productOrder", "tenant": "acme"})
}

respondent := {"id": "northwind", "tenant": "acme", "roles": ["respondent"], "party": "northwind"}

by_link(action, resource) := {
	"subject": respondent,
	"action": action,
	"resource": resource,
	"channel": "link",
	"environment": {"time": 0},
}

answered := {"kind": "surveyAnswer", "tenant": "acme", "id": "1", "parties": ["northwind"], "of": "productOrder"}

test_a_link_answers_and_does_nothing_else if {
	main.decision.allow with input as by_link("create", answered)
	main.decision.allow with input as by_link("retrieve", answered)
	every action in ["list", "patch", "delete"] {
		not main.decision.allow with input as by_link(action, answered)
	}
	every kind in ["productOrder", "alarm", "customerBill", "intent"] {
		not main.decision.allow with input as by_link("retrieve", {"kind": kind, "tenant": "acme"})
	}
}

test_a_link_reaches_no_other_customer_and_no_other_tenant if {
	not main.decision.allow with input as by_link("create", object.union(answered, {"parties": ["contoso"]}))
	not main.decision.allow with input as by_link("create", object.union(answered, {"tenant": "globex"}))
	not main.decision.allow with input as by_link("create", object.remove(answered, ["tenant"]))
}

test_no_token_makes_its_bearer_a_link if {
	every channel in ["rest", "console", "delivery"] {
		question := object.union(by_link("retrieve", answered), {"channel": channel})
		decision := main.decision with input as question
		not decision.allow
		"the role respondent is that of a survey's link alone" in decision.reasons
	}
}
