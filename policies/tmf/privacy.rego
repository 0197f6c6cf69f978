# Personal data in what is told: by kind of resource, the members that are taken away and what is masked in texts. A
# customer hears of its own whole, and so do those whose role works with customers; a notification is masked when it is
# made, as everybody who reads it reads the same text.
package tmf.privacy

default obligations := {}

obligations := {"redact": rules.redact, "mask": rules.mask} if {
	input.channel == "delivery"
	input.action != "tell"
	rules := data.personal.kinds[input.resource.of]
	not entitled
	not all_own
}

obligations := {"redact": rules.redact, "mask": rules.mask} if {
	input.action == "tell"
	rules := data.personal.told
}

entitled if {
	some role in data.tmf.authz.granting_roles
	role in data.personal.entitled
}

all_own if input.resource.parties == [input.subject.party]
