# The one question that the gateway asks. Every package below adds reasons; without a reason against and with a grant
# for it, an action is allowed.
package main

default decision := {"allow": false, "reasons": ["no policy answered"], "filter": {}}

decision := {"allow": allow, "reasons": sort(reasons), "filter": filter}

default allow := false

allow if {
	data.tmf.authz.granted
	count(reasons) == 0
}

reasons := data.tmf.authz.reasons | data.tmf.limits.reasons

filter := {"parties": [party | party := input.subject.party]} if data.tmf.authz.own_things_only

filter := {} if not data.tmf.authz.own_things_only
