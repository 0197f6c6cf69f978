# When customers are told, and what through which channel. The rules of the operator's file say when it is quiet now and
# what breaks through; whether that is kept to is decided here. What leaves through a channel goes over machines of
# others, so of each kind it has no more than what that kind needs.
package tmf.telling

default not_before := {}

not_before := {"notBefore": input.resource.quiet.until} if {
	input.resource.quiet.until > input.environment.time
	not breaks_through
}

breaks_through if input.resource.severity in input.resource.quiet.breakThrough

# For data that says nothing of channels.
default minimal := {"redact": ["relatedParty.name", "traceId"], "mask": ["email", "phone", "iban"]}

minimal := {"redact": object.get(rules, "redact", []), "mask": object.get(rules, "mask", [])} if {
	rules := object.get(data.channels.kinds, input.resource.viaKind, data.channels.kinds["*"])
}

reasons contains sprintf("customers of tenant %v are told nothing by %v", [input.resource.tenant, input.resource.viaKind]) if {
	allowed := data.channels.allowed[input.resource.tenant]
	not input.resource.viaKind in allowed
}
