package tmf.remediation_test

import data.main

now := 1764140000

mara := {"id": "mara", "tenant": "acme", "roles": ["noc"], "issued": now - 600}

approved(changed) := object.union({"by": mara, "time": now - 60, "decision": "approved"}, changed)

asked(kind, channel, more) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": {"intent": "perform", "step": "run"}[kind],
	"resource": object.union({"kind": kind, "tenant": "acme", "device": "pe1", "deviceTenant": "acme", "purpose": "remediation", "workflow": "reset-port"}, more),
	"body": {},
	"channel": channel,
	"environment": {"time": now},
}

on_both_paths(more) := [asked("intent", "adapter", more), asked("step", "flow", more)]

refused(more, words) if {
	every question in on_both_paths(more) {
		reasons := main.decision.reasons with input as question
		words in reasons
		not main.decision.allow with input as question
	}
}

test_approved_by_another_person if {
	every question in on_both_paths({"approval": approved({})}) {
		main.decision.allow with input as question
	}
}

test_without_approval_nothing_is_repaired if {
	words := "remediation reset-port needs the approval of another person than who asked for it"
	refused({}, words)
	refused({"approval": null}, words)
	refused({"approval": {"by": mara, "time": now}}, words)
	refused({"approval": {"by": {}, "time": now, "decision": "approved"}}, words)
	refused({"approval": approved({"decision": "refused"})}, words)
}

test_nobody_approves_what_it_asked_for if {
	refused({"approval": approved({}), "owner": mara}, "whoever asked for remediation reset-port cannot approve it too")
	gateway := approved({"by": {"id": "convergedon"}})
	refused({"approval": gateway}, "whoever asked for remediation reset-port cannot approve it too")
}

test_only_certain_roles_of_the_same_tenant_approve if {
	words := "remediation reset-port is approved by the roles noc, admin in the same tenant only"
	refused({"approval": approved({"by": {"roles": ["csr"]}})}, words)
	refused({"approval": approved({"by": {"tenant": "globex"}})}, words)
}

test_a_withdrawn_approver_approves_nothing if {
	every question in on_both_paths({"approval": approved({})}) {
		not main.decision.allow with input as question with data.withdrawn as {"subjects": {"acme": {"mara": now}}, "roles": {}}
	}
}

test_an_approval_does_not_last_for_ever if {
	words := "the approval of remediation reset-port is too old: it counts for 3600 seconds"
	refused({"approval": approved({"time": now - 3601})}, words)
	refused({"approval": approved({"time": now + 61})}, words)
	refused({"approval": approved({"time": "yesterday"})}, words)
}

test_a_workflow_may_run_by_itself_where_its_tenant_says_so if {
	every tenant in ["acme", "*"] {
		every question in on_both_paths({}) {
			main.decision.allow with input as question with data.remediation.automatic as {tenant: ["reset-port"]}
		}
	}
	every question in on_both_paths({}) {
		not main.decision.allow with input as question with data.remediation.automatic as {"globex": ["reset-port"], "acme": ["other"]}
	}
}

test_a_purpose_that_nobody_knows_is_refused if {
	reasons := main.decision.reasons with input as asked("intent", "adapter", {"purpose": "fun"})
	reasons == ["fun is no purpose of an intent: order, undo and remediation are"]
}
