# Where a tenant may be served: countries and sites, as its contract or the law has it. A tenant of which nothing is said
# may be served wherever there is a site.
package tmf.geography

served := found if {
	data.geography.served != {}
	found := object.get(data.geography.served, [input.subject.tenant], object.get(data.geography.served, "*", null))
	found != null
}

country(site) := object.get(data.geography.countries, [input.subject.tenant, site], "")

sites contains site if {
	data.tmf.orders.asked
	some site in data.tmf.orders.characteristics("site")
}

sites contains site if site := input.resource.sites[_]

sites contains input.resource.site if changed

changed if {
	input.channel == "adapter"
	is_object(input.body)
	not taken_back
}

taken_back if input.resource.purpose == "undo"

allowed(site) if site in served.sites

allowed(site) if country(site) in served.countries

reasons contains sprintf("tenant %v may not be served at site %v", [input.subject.tenant, site]) if {
	served
	some site in sites
	not allowed(site)
}

reasons contains sprintf("tenant %v is served at certain sites only, and it is not said at which this is", [input.subject.tenant]) if {
	served
	changed
	not input.resource.site
}

# What a device is by the policies' data counts whatever an intent says of its site.
reasons contains sprintf("tenant %v may not be served on device %v", [input.subject.tenant, input.resource.device]) if {
	served
	changed
	country_of_device := data.geography.devices[input.resource.device]
	not country_of_device in object.get(served, "countries", [])
}
