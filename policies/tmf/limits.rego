# What a tenant's contract allows: bandwidth of an access (Mbit/s) and how many of anything an order may have, over REST,
# when an order is begun, and again before a device is touched. What takes something away is always within it.
package tmf.limits

# What a tenant's own contract does not say, everybody's does; what neither says, nothing is within.
contract := object.union(object.get(data.contracts, "*", {}), object.get(data.contracts, [input.subject.tenant], {}))

wanted contains value if {
	some value in data.tmf.orders.characteristics("bandwidth")
	is_number(value) # what is none, the plan refuses
}

wanted contains value if {
	input.resource.kind == "intent"
	not taken_back
	value := input.body.bandwidth
}

taken_back if input.resource.purpose == "undo"

# No number takes anything away from another.
many := count(data.tmf.orders.growing) + sum([more |
	number := data.tmf.orders.growing[_].quantity
	is_number(number)
	number > 1
	more := number - 1
])

reasons contains sprintf("bandwidth %v Mbit/s is above the %v Mbit/s of tenant %v's contract", [value, bandwidth, input.subject.tenant]) if {
	some value in wanted
	bandwidth := contract.bandwidth
	not value <= bandwidth
}

reasons contains sprintf("quantity %v is above the %v of tenant %v's contract", [many, quantity, input.subject.tenant]) if {
	quantity := contract.quantity
	many > quantity
}

reasons contains sprintf("no contract says how much bandwidth tenant %v may have", [input.subject.tenant]) if {
	wanted != set()
	not contract.bandwidth
}

reasons contains sprintf("no contract says how many of anything tenant %v may order", [input.subject.tenant]) if {
	many > 0
	not contract.quantity
}
