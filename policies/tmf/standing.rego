# Which roles of somebody still stand: they are known here, were not withdrawn since they were given, and are not too
# old. Asked of who acts, and of the owner in whose name the gateway goes on later.
package tmf.standing

# not `some .. in input.subject.roles`: engines differ in what they say to roles that are no list
said := [role |
	role := input.subject.roles[_]
	is_string(role)
]

stands(subject, role) if {
	role != "system"
	data.roles[role]
	not over(subject, role)
}

stands(_, "system") if not from_outside

# No token makes its bearer the gateway.
from_outside if input.channel in {"rest", "console", "delivery"}

# With object.get: the embedded engine takes ten times as long to find that there is no data.withdrawn.roles.acme.csr.
over(subject, role) if {
	data.withdrawn != {"subjects": {}, "roles": {}}
	some time in [
		object.get(data.withdrawn.subjects, [subject.tenant, subject.id], null),
		object.get(data.withdrawn.roles, [subject.tenant, role], null),
		object.get(data.withdrawn.roles, ["*", role], null),
	]
	time != null
	not after(subject, time)
}

over(subject, role) if {
	data.longest != {}
	seconds := object.get(data.longest, role, object.get(data.longest, "*", null))
	seconds != null
	not younger(subject, seconds)
}

# Who does not say when its roles were given was given them before.
after(subject, time) if {
	is_number(subject.issued)
	subject.issued > time
}

younger(subject, seconds) if {
	is_number(subject.issued)
	input.environment.time - subject.issued <= seconds
}
