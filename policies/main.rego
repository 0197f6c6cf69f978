# The one question that the gateway asks. Every package below adds reasons; without a reason against and with a grant
# for it, an action is allowed.
package main

default decision := {"allow": false, "reasons": ["no policy answered"], "filter": {}, "obligations": {}}

decision := {"allow": allow, "reasons": sort(reasons), "filter": filter, "obligations": obligations}

default allow := false

allow if {
	data.tmf.authz.granted
	count(reasons) == 0
}

reasons := union({
	data.tmf.authz.reasons,
	data.tmf.tenants.reasons,
	ordering,
	repairing,
	sending,
})

# About what is ordered and done: nothing else waits until they have nothing to say.
default ordering := set()

ordering := union({
	data.tmf.limits.reasons,
	siting,
	spending,
	timing,
}) if changes

# Where no data says anything nothing is looked for.
default siting := set()

siting := data.tmf.geography.reasons if data.geography.served != {}

default timing := set()

timing := data.tmf.windows.reasons if data.windows != {}

default spending := set()

spending := data.tmf.spend.reasons if data.tmf.spend.priced

changes if input.resource.kind == "intent"

changes if {
	input.resource.kind == "productOrder"
	is_object(input.body)
}

default sending := set()

sending := data.tmf.telling.reasons if input.action == "send"

default repairing := set()

repairing := data.tmf.remediation.reasons if repairs

repairs if input.resource.purpose

repairs if input.action in {"approve", "remediate", "prove"}

# What may be seen at all. The gateway holds that to the subject's own tenant whatever stands here.
default filter := {}

filter := {"tenant": input.subject.tenant, "parties": [party | party := input.subject.party]} if {
	data.tmf.authz.own_things_only
} else := {"tenant": input.subject.tenant}

# What whoever goes on must do besides.
default obligations := {}

obligations := data.tmf.privacy.obligations if input.action == "receive"

obligations := object.union(data.tmf.privacy.obligations, data.tmf.telling.not_before) if input.action == "tell"

obligations := data.tmf.telling.minimal if input.action == "send"

obligations := data.tmf.windows.obligations if input.action == "fulfil"
