# What repairs a fault by changing the network: by a workflow that its tenant lets run by itself, or approved by another
# person than who asked for it, whose role is one that approves, not too long ago.
package tmf.remediation

asked if input.resource.purpose == "remediation"

automatic if input.resource.workflow in data.remediation.automatic[input.resource.tenant]

automatic if input.resource.workflow in data.remediation.automatic["*"]

approval := input.resource.approval

approver := approval.by

answered if {
	approval.decision == "approved"
	approver.id
}

own if approver.id == input.subject.id

own if approver.id == input.resource.owner.id

approves if {
	approver.tenant == input.resource.tenant
	role := approver.roles[_]
	role in data.remediation.approvers
	data.tmf.standing.stands(approver, role)
}

recent if {
	is_number(approval.time)
	age := input.environment.time - approval.time
	age <= data.remediation.valid
	age >= -60 # clocks
}

named := object.get(input.resource, "workflow", "of no name")

reasons contains sprintf("remediation %v needs the approval of another person than who asked for it", [named]) if {
	asked
	not automatic
	not answered
}

reasons contains sprintf("whoever asked for remediation %v cannot approve it too", [named]) if {
	asked
	not automatic
	answered
	own
}

reasons contains sprintf("remediation %v is approved by the roles %v in the same tenant only", [named, concat(", ", data.remediation.approvers)]) if {
	asked
	not automatic
	answered
	not approves
}

reasons contains sprintf("the approval of remediation %v is too old: it counts for %v seconds", [named, data.remediation.valid]) if {
	asked
	not automatic
	answered
	not recent
}

reasons contains sprintf("%v is no purpose of an intent: order, undo and remediation are", [input.resource.purpose]) if {
	input.resource.kind == "intent"
	input.resource.purpose
	not input.resource.purpose in {"order", "undo", "remediation"}
}
