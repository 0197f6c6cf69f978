# Who may do what to which resource. Grants are data (roles in data.json): role -> resource -> actions.
package tmf.authz

default granted := false

granted if granting_roles != set()

granting_roles contains role if {
	role := input.subject.roles[_]
	grants(role, input.action, input.resource.kind)
	data.tmf.standing.stands(input.subject, role)
}

grants(role, action, kind) if {
	given := data.roles[role]
	some granted_kind in [kind, "*"]
	some granted_action in given[granted_kind]
	granted_action in {action, "*"}
}

# A caller whose every granting role is the customer's reaches only what concerns its own party.
own_things_only if granting_roles == {"customer"}

# So does who answers a survey by the link in a message.
own_things_only if granting_roles == {"respondent"}

reasons contains sprintf("none of the roles [%v] may %v a %v", [concat(", ", data.tmf.standing.said), input.action, input.resource.kind]) if {
	not granted
}

reasons contains "a customer's token must name its party" if {
	own_things_only
	not input.subject.party
}

reasons contains "a customer reaches only what concerns its own party" if {
	own_things_only
	input.subject.party
	input.resource.parties
	not concerns_own_party
}

# a rule of its own: engines differ in what `not x in y` says where x is undefined
concerns_own_party if input.subject.party in input.resource.parties

reasons contains sprintf("the role %v was withdrawn or is too old: a new token is needed", [role]) if {
	not granted
	some role in data.tmf.standing.said
	data.roles[role]
	data.tmf.standing.over(input.subject, role)
}

reasons contains "the role system is the gateway's own" if {
	role := input.subject.roles[_]
	role == "system"
	data.tmf.standing.from_outside
}

reasons contains "the role respondent is that of a survey's link alone" if {
	role := input.subject.roles[_]
	role == "respondent"
	not by_link
}

by_link if input.channel == "link"

reasons contains sprintf("who asked for this has no role any more that may %v a %v", wanted) if {
	input.resource.owner
	wanted
	not owner_may
}

owner_may if {
	role := input.resource.owner.roles[_]
	grants(role, wanted[0], wanted[1])
	data.tmf.standing.stands(input.resource.owner, role)
}

# What the owner asked for when the gateway took it on. What only ends something is done whoever asked for it: nothing
# may stay half done because a role was withdrawn.
wanted := ["create", input.resource.of] if {
	input.action == "run"
	not ends
}

wanted := ["create", "productOrder"] if {
	input.action in {"perform", "fulfil"}
	not ends
}

ends if input.resource.purpose == "undo"

ends if input.resource.step in data.steps.ending
