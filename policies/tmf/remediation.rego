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

# A second person, where the workflow is one that wants two.
second := approval.second

needs_second if input.resource.workflow in data.remediation.second

seconded if {
	second.decision == "approved"
	second.by.id
	second.by.id != approver.id
	not second_own
	second.by.tenant == input.resource.tenant
	role := second.by.roles[_]
	role in data.remediation.approvers
	data.tmf.standing.stands(second.by, role)
}

second_own if second.by.id == input.subject.id

second_own if second.by.id == input.resource.owner.id

recent if {
	is_number(approval.time)
	age := input.environment.time - approval.time
	age <= data.remediation.valid
	age >= -60 # clocks
}

# not object.get: the embedded engine stops where the resource is none
default named := "of no name"

named := input.resource.workflow

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

reasons contains sprintf("remediation %v needs the approval of a second person", [named]) if {
	asked
	not automatic
	answered
	needs_second
	not seconded
}

reasons contains sprintf("%v is no purpose of an intent: order, undo and remediation are", [input.resource.purpose]) if {
	input.resource.kind == "intent"
	input.resource.purpose
	not input.resource.purpose in {"order", "undo", "remediation"}
}

# Who may say something to what a run asks, whether yes or no.
approving if input.action == "approve"

may_approve if {
	role := input.subject.roles[_]
	role in data.remediation.approvers
	data.tmf.standing.stands(input.subject, role)
}

reasons contains sprintf("remediation %v is approved by the roles %v", [named, concat(", ", data.remediation.approvers)]) if {
	approving
	not may_approve
}

reasons contains sprintf("%v has approved %v already: another person is needed", [input.subject.id, named]) if {
	approving
	input.subject.id in input.resource.approvers
}

# Whether a workflow may begin, going by what the gateway tells of its target.
beginning if input.action == "remediate"

limits := data.remediation.limits

# How often one workflow may run on one device: its own bound, where it has one.
per_hour := data.remediation.limits.each[named].perHour

per_hour := limits.perHour if not data.remediation.limits.each[named].perHour

# How often any workflows may: repairs that raise each other's alarms go round in circles.
default per_target := 6

per_target := data.remediation.limits.perTarget

# How many may wait until another one has left the device.
default most_waiting := 5

most_waiting := data.remediation.limits.waiting

# What is made for a fault that comes and goes may begin on one that has done so many times.
for_flapping if named in data.remediation.flapping

reasons contains sprintf("all workflows are stopped: %v", [input.resource.stopped]) if {
	beginning
	input.resource.stopped != ""
}

reasons contains sprintf("%v is not known to be of tenant %v: it has told nothing of this, and no service stands on it", [input.resource.device, input.resource.tenant]) if {
	beginning
	input.resource.changes
	input.resource.known == false
}

reasons contains sprintf("%v has run on %v %v times within an hour: a person must look at it", [named, input.resource.device, input.resource.recent]) if {
	beginning
	input.resource.changes
	input.resource.recent >= per_hour
}

reasons contains sprintf("workflows have run on %v %v times within an hour: they may go round in circles, and a person must look at it", [input.resource.device, input.resource.repairs]) if {
	beginning
	input.resource.changes
	input.resource.repairs >= per_target
}

reasons contains sprintf("the fault touches %v services, and workflows may touch %v", [input.resource.affected, limits.affected]) if {
	beginning
	input.resource.changes
	input.resource.affected > limits.affected
}

reasons contains sprintf("this alarm was raised %v times within an hour: it flaps, and a person must look at it", [input.resource.raised]) if {
	beginning
	input.resource.changes
	input.resource.raised >= limits.raised
	not for_flapping
}

reasons contains sprintf("%v workflows are under way already", [input.resource.underWay]) if {
	beginning
	input.resource.changes
	input.resource.underWay >= limits.underWay
}

reasons contains sprintf("%v workflows wait for %v already", [input.resource.waiting, input.resource.device]) if {
	beginning
	input.resource.changes
	input.resource.waiting >= most_waiting
}

# Whether what was done has helped, going by what the gateway sees around its target.
proving if input.action == "prove"

default more_services := 0

more_services := data.remediation.worse.services

default more_alarms := 0

more_alarms := data.remediation.worse.alarms

reasons contains sprintf("it is worse than before: %v services of %v are out of service that worked", [input.resource.newly.services, input.resource.device]) if {
	proving
	input.resource.newly.services > more_services
}

reasons contains sprintf("it is worse than before: %v alarms are open on %v, and there were %v", [input.resource.after.alarms, input.resource.device, input.resource.before.alarms]) if {
	proving
	input.resource.after.alarms > input.resource.before.alarms + more_alarms
}
