package tmf.telling_test

night := 1770000000

told(severity) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": "tell",
	"resource": {
		"kind": "customerNotification",
		"tenant": "acme",
		"id": "7b1e",
		"parties": ["northwind"],
		"type": "serviceAffected",
		"severity": severity,
		"quiet": {"until": night + 3600, "breakThrough": ["critical"]},
	},
	"body": {"text": "it is disturbed"},
	"before": null,
	"channel": "flow",
	"environment": {"time": night},
}

sent(tenant, kind) := {
	"subject": {"id": "convergedon", "tenant": tenant, "roles": ["system"]},
	"action": "send",
	"resource": {
		"kind": "customerNotification",
		"tenant": tenant,
		"id": "7b1e",
		"parties": ["northwind"],
		"type": "serviceAffected",
		"via": "mail",
		"viaKind": kind,
	},
	"body": {"text": "it is disturbed"},
	"before": null,
	"channel": "notification",
	"environment": {"time": night},
}

test_quiet_hours_keep_back if {
	decision := data.main.decision with input as told("major")
	decision.allow
	decision.obligations.notBefore == night + 3600
	decision.obligations.mask == ["email", "phone", "iban"]
}

test_what_is_grave_breaks_through if {
	decision := data.main.decision with input as told("critical")
	decision.allow
	not decision.obligations.notBefore
}

test_who_says_no_severity_waits if {
	asked := json.remove(told("major"), ["resource/severity"])
	decision := data.main.decision with input as asked
	decision.obligations.notBefore == night + 3600
}

test_after_the_quiet_hours_it_is_told if {
	asked := object.union(told("major"), {"environment": {"time": night + 3600}})
	decision := data.main.decision with input as asked
	not decision.obligations.notBefore
}

test_outside_of_quiet_hours_it_is_told if {
	asked := json.remove(told("major"), ["resource/quiet"])
	decision := data.main.decision with input as asked
	not decision.obligations.notBefore
}

test_what_leaves_by_mail_is_minimal if {
	decision := data.main.decision with input as sent("acme", "email")
	decision.allow
	"traceId" in decision.obligations.redact
	"phone" in decision.obligations.mask
}

test_a_kind_that_nobody_named_is_minimal_too if {
	decision := data.main.decision with input as sent("acme", "pigeon")
	decision.allow
	"relatedParty.name" in decision.obligations.redact
}

test_a_tenant_may_have_kinds_forbidden if {
	channels := {"kinds": data.channels.kinds, "allowed": {"acme": ["webhook"]}}
	decision := data.main.decision with input as sent("acme", "email") with data.channels as channels
	not decision.allow
	decision.reasons == ["customers of tenant acme are told nothing by email"]
	other := data.main.decision with input as sent("globex", "email") with data.channels as channels
	other.allow
	webhook := data.main.decision with input as sent("acme", "webhook") with data.channels as channels
	webhook.allow
}

test_data_that_say_nothing_of_channels_let_nothing_personal_out if {
	decision := data.main.decision with input as sent("acme", "email") with data.channels as {}
	decision.allow
	"email" in decision.obligations.mask
}
