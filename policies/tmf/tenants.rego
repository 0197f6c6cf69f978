# Nobody reaches another tenant's things: over REST, when an event is delivered, in a step of a flow, or on a device.
package tmf.tenants

reasons contains "the token names no tenant" if not subject_is_named

# Rules of their own: engines differ in what they say to `not named(..)` of something that is not there.
subject_is_named if {
	is_string(input.subject.tenant)
	input.subject.tenant != ""
}

resource_is_named if {
	is_string(input.resource.tenant)
	input.resource.tenant != ""
}

reasons contains "this belongs to another tenant" if {
	input.resource.tenant
	input.resource.tenant != input.subject.tenant
}

# What the gateway does by itself is always somebody's.
reasons contains "it is not said whose this is" if {
	input.channel in {"delivery", "flow", "notification", "adapter", "link"}
	not resource_is_named
}

reasons contains "who asked for this is of another tenant" if {
	input.resource.owner.tenant != input.resource.tenant
}

reasons contains sprintf("device %v is none of tenant %v's", [input.resource.device, input.resource.tenant]) if {
	input.channel == "adapter"
	not its_device
}

its_device if input.resource.deviceTenant == input.resource.tenant

its_device if {
	is_string(input.resource.deviceTenant)
	input.resource.deviceTenant != ""
	input.resource.tenant in data.shared[input.resource.device]
}
