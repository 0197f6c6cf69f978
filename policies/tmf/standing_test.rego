package tmf.standing_test

import data.main

now := 1764140000

csr := {"id": "vendor", "tenant": "acme", "roles": ["csr"], "issued": now - 60}

asked(subject, channel) := {
	"subject": subject,
	"action": "list",
	"resource": {"kind": "productOrder", "tenant": "acme"},
	"channel": channel,
	"environment": {"time": now},
}

over := "the role csr was withdrawn or is too old: a new token is needed"

test_a_role_stands if main.decision.allow with input as asked(csr, "rest")

test_a_withdrawn_subject_has_no_role if {
	every channel in ["rest", "console", "delivery", "task"] {
		reasons := main.decision.reasons with input as asked(csr, channel)
			with data.withdrawn as {"subjects": {"acme": {"vendor": now - 30}}, "roles": {}}
		reasons == ["none of the roles [csr] may list a productOrder", over]
	}
}

test_a_role_given_after_the_withdrawal_stands if {
	main.decision.allow with input as asked(csr, "rest")
		with data.withdrawn as {"subjects": {"acme": {"vendor": now - 90}}, "roles": {}}
}

test_a_withdrawn_role_is_none if {
	every tenant in ["acme", "*"] {
		reasons := main.decision.reasons with input as asked(csr, "rest")
			with data.withdrawn as {"subjects": {}, "roles": {tenant: {"csr": now}}}
		reasons == ["none of the roles [csr] may list a productOrder", over]
	}
}

test_another_tenants_withdrawal_changes_nothing if {
	main.decision.allow with input as asked(csr, "rest")
		with data.withdrawn as {"subjects": {"globex": {"vendor": now}}, "roles": {"globex": {"csr": now}}}
}

test_who_does_not_say_when_its_role_was_given_is_withdrawn_too if {
	not main.decision.allow with input as asked(object.remove(csr, ["issued"]), "rest")
		with data.withdrawn as {"subjects": {}, "roles": {"acme": {"csr": 1}}}
}

test_a_withdrawn_role_leaves_the_others if {
	both := object.union(csr, {"roles": ["csr", "customer"], "party": "northwind"})
	decision := main.decision with input as asked(both, "rest")
		with data.withdrawn as {"subjects": {}, "roles": {"acme": {"csr": now}}}
	decision.allow
	decision.filter == {"tenant": "acme", "parties": ["northwind"]}
}

test_an_old_role_is_refused if {
	main.decision.allow with input as asked(csr, "rest") with data.longest as {"*": 60}
	every longest in [{"*": 59}, {"csr": 59, "*": 3600}] {
		not main.decision.allow with input as asked(csr, "rest") with data.longest as longest
	}
	not main.decision.allow with input as asked(object.remove(csr, ["issued"]), "rest") with data.longest as {"csr": 60}
}

test_an_unknown_role_grants_nothing if {
	main.decision.reasons == ["none of the roles [chief] may list a productOrder"] with input as asked(object.union(csr, {"roles": ["chief"]}), "rest")
}

test_no_token_makes_its_bearer_the_gateway if {
	every channel in ["rest", "console", "delivery"] {
		reasons := main.decision.reasons with input as asked(object.union(csr, {"roles": ["system"]}), channel)
		"the role system is the gateway's own" in reasons
	}
	both := object.union(csr, {"roles": ["admin", "system"]})
	main.decision.reasons == ["the role system is the gateway's own"] with input as asked(both, "rest")
}

done(action, resource) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": action,
	"resource": object.union({"tenant": "acme", "owner": csr}, resource),
	"body": {},
	"channel": "flow",
	"environment": {"time": now},
}

gone := {"subjects": {"acme": {"vendor": now}}, "roles": {}}

test_what_was_asked_for_by_somebody_withdrawn_is_not_begun if {
	begun := [
		done("run", {"kind": "step", "step": "billing.bill", "of": "productOrder"}),
		done("fulfil", {"kind": "productOrder"}),
		done("perform", {"kind": "intent", "purpose": "order"}),
	]
	every question in begun {
		main.decision.allow with input as question
		reasons := main.decision.reasons with input as question with data.withdrawn as gone
		count(reasons) == 1
		startswith(reasons[0], "who asked for this has no role any more that may create a productOrder")
	}
}

test_who_may_not_do_it_itself_has_it_not_done if {
	reader := object.union(csr, {"roles": ["reader"]})
	not main.decision.allow with input as done("fulfil", {"kind": "productOrder", "owner": reader})
}

test_what_was_begun_is_ended_and_taken_back if {
	ended := [
		done("run", {"kind": "step", "step": "ordering.advance", "of": "productOrder"}),
		done("perform", {"kind": "intent", "purpose": "undo"}),
	]
	every question in ended {
		main.decision.allow with input as question with data.withdrawn as gone
	}
}
