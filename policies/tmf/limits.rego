# What a tenant's contract allows: bandwidth of an access (Mbit/s), over REST and again before a device is touched.
package tmf.limits

limit := data.contracts[input.subject.tenant].bandwidth

limit := data.contracts["*"].bandwidth if not data.contracts[input.subject.tenant].bandwidth

wanted contains characteristic.value if {
	input.resource.kind == "productOrder"

	# not `some .. in`: engines differ in what they say to a body that holds something else here
	characteristic := input.body.productOrderItem[_].product.productCharacteristic[_]
	characteristic.name == "bandwidth"
}

wanted contains input.body.bandwidth if {
	input.resource.kind == "intent"
	input.body.bandwidth
}

reasons contains sprintf("bandwidth %v Mbit/s is above the %v Mbit/s of tenant %s's contract", [value, limit, input.subject.tenant]) if {
	some value in wanted
	is_number(value)
	value > limit
}
