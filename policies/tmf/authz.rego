# Who may do what to which resource. Grants are data (roles in data.json): role -> resource -> actions.
package tmf.authz

default granted := false

granted if some _ in granting_roles

granting_roles contains role if {
	some role in roles
	grants(data.roles[role])
}

# Four look-ups, not a search of all pairs: this runs at every call.
grants(given) if input.action in given[input.resource.kind]

grants(given) if "*" in given[input.resource.kind]

grants(given) if input.action in given["*"]

grants(given) if "*" in given["*"]

# A caller whose every granting role is the customer's reaches only what concerns its own party.
own_things_only if granting_roles == {"customer"}

# not `some .. in input.subject.roles`: engines differ in what they say to roles that are no list
roles := [role |
	role := input.subject.roles[_]
	is_string(role)
]

reasons contains sprintf("none of the roles [%s] may %v a %v", [concat(", ", roles), input.action, input.resource.kind]) if {
	not granted
}

reasons contains "the token names no tenant" if not input.subject.tenant

reasons contains "this belongs to another tenant" if {
	input.resource.tenant
	input.resource.tenant != input.subject.tenant
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
