# What a tenant's contract allows: bandwidth of an access (Mbit/s) and how many of anything an order may have, over REST,
# when an order is begun, and again before a device is touched. What takes something away is always within it.
package tmf.limits

import data.tmf.orders

# Null where no contract says anything: nothing is within that.
limit(name) := object.get(data.contracts, [input.subject.tenant, name], object.get(data.contracts, ["*", name], null))

reasons contains reason if {
	orders.asked
	some value in orders.characteristics("bandwidth")
	is_number(value) # what is none, the plan refuses
	reason := over("bandwidth", value, " Mbit/s")
}

reasons contains reason if {
	input.resource.kind == "intent"
	not taken_back
	reason := over("bandwidth", input.body.bandwidth, " Mbit/s")
}

reasons contains reason if {
	orders.asked
	reason := over("quantity", sum([orders.quantity(item) | item := orders.growing[_]]), "")
}

taken_back if input.resource.purpose == "undo"

over(name, _, _) := sprintf("no contract says how much %v tenant %v may have", [name, input.subject.tenant]) if {
	limit(name) == null
}

over(name, value, unit) := sprintf("%v %v%v is above the %v%v of tenant %v's contract", [name, value, unit, most, unit, input.subject.tenant]) if {
	most := limit(name)
	most != null
	not value <= most
}
