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

zoe := object.union(mara, {"id": "zoe"})

test_some_workflows_need_two_persons if {
	second := [{}, {"second": approved({})}, {"second": approved({"by": {"id": "zoe", "tenant": "globex"}})}]
	every more in second {
		every question in on_both_paths({"approval": object.union(approved({}), more)}) {
			reasons := main.decision.reasons with input as question with data.remediation.second as ["reset-port"]
			reasons == ["remediation reset-port needs the approval of a second person"]
		}
	}
	every question in on_both_paths({"approval": object.union(approved({}), {"second": approved({"by": zoe})})}) {
		main.decision.allow with input as question with data.remediation.second as ["reset-port"]
	}
}

approves(subject, more) := {
	"subject": object.union(mara, subject),
	"action": "approve",
	"resource": object.union({"kind": "workflowRun", "tenant": "acme", "workflow": "reset-port", "approvers": []}, more),
	"channel": "task",
	"environment": {"time": now},
}

test_who_may_answer_what_a_run_asks if {
	main.decision.allow with input as approves({}, {})
	not main.decision.allow with input as approves({"roles": ["csr"]}, {})
	not main.decision.allow with input as approves({}, {"tenant": "globex"})
	reasons := main.decision.reasons with input as approves({}, {"approvers": ["mara"]})
	unable := main.decision.reasons with input as approves({}, {}) with data.remediation.approvers as ["admin"]
	unable == ["remediation reset-port is approved by the roles admin"]
	reasons == ["mara has approved reset-port already: another person is needed"]
}

begins(more) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": "remediate",
	"resource": object.union(
		{
			"kind": "workflowRun", "tenant": "acme", "workflow": "reset-port", "device": "pe1", "changes": true,
			"affected": 2, "known": true, "recent": 0, "repairs": 0, "raised": 1, "underWay": 0, "waiting": 0, "stopped": "",
		},
		more,
	),
	"channel": "flow",
	"environment": {"time": now},
}

test_a_workflow_begins_within_its_limits if {
	main.decision.allow with input as begins({})
	every more, words in {
		{"known": false}: "pe1 is not known to be of tenant acme: it has told nothing of this, and no service stands on it",
		{"recent": 3}: "reset-port has run on pe1 3 times within an hour: a person must look at it",
		{"repairs": 6}: "workflows have run on pe1 6 times within an hour: they may go round in circles, and a person must look at it",
		{"affected": 101}: "the fault touches 101 services, and workflows may touch 100",
		{"raised": 5}: "this alarm was raised 5 times within an hour: it flaps, and a person must look at it",
		{"underWay": 20}: "20 workflows are under way already",
		{"waiting": 5}: "5 workflows wait for pe1 already",
		{"stopped": "maintenance"}: "all workflows are stopped: maintenance",
	} {
		reasons := main.decision.reasons with input as begins(more)
		reasons == [words]
	}
	every more in [{"known": false}, {"recent": 3}, {"repairs": 6}, {"affected": 101}, {"raised": 5}, {"underWay": 20}, {"waiting": 5}] {
		main.decision.allow with input as begins(object.union(more, {"changes": false}))
	}
}

test_one_workflow_may_have_a_bound_of_its_own if {
	own := {"reset-port": {"perHour": 1}}
	not main.decision.allow with input as begins({"recent": 1}) with data.remediation.limits.each as own
	main.decision.allow with input as begins({"recent": 2, "workflow": "other"}) with data.remediation.limits.each as own
}

test_five_wait_for_a_device_where_nothing_is_said if {
	said := {name: bound | bound := data.remediation.limits[name]; name != "waiting"}
	main.decision.allow with input as begins({"waiting": 4}) with data.remediation.limits as said
	not main.decision.allow with input as begins({"waiting": 5}) with data.remediation.limits as said
	main.decision.allow with input as begins({"waiting": 5}) with data.remediation.limits as object.union(said, {"waiting": 6})
}

test_what_is_made_for_flapping_begins_on_it if {
	main.decision.allow with input as begins({"raised": 50}) with data.remediation.flapping as ["reset-port"]
	not main.decision.allow with input as begins({"raised": 50, "recent": 3}) with data.remediation.flapping as ["reset-port"]
}

proves(before, after, newly) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": "prove",
	"resource": {
		"kind": "workflowRun", "tenant": "acme", "workflow": "reset-port", "device": "pe1",
		"before": before, "after": after, "newly": newly,
	},
	"channel": "flow",
	"environment": {"time": now},
}

test_a_repair_after_which_it_is_worse_has_not_helped if {
	before := {"alarms": 1, "services": 2}
	main.decision.allow with input as proves(before, {"alarms": 0, "services": 0}, {"alarms": 0, "services": 0})
	main.decision.allow with input as proves(before, before, {"alarms": 1, "services": 0})
	services := main.decision.reasons with input as proves(before, before, {"alarms": 0, "services": 1})
	services == ["it is worse than before: 1 services of pe1 are out of service that worked"]
	alarms := main.decision.reasons with input as proves(before, {"alarms": 2, "services": 2}, {"alarms": 1, "services": 0})
	alarms == ["it is worse than before: 2 alarms are open on pe1, and there were 1"]
	main.decision.allow with input as proves(before, {"alarms": 2, "services": 2}, {"alarms": 1, "services": 1}) with data.remediation.worse as {"services": 1, "alarms": 1}
}
