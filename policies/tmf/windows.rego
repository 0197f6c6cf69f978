# When a tenant's network may be changed: windows by tenant and site, in UTC. A tenant without any may be changed at any
# time. An order waits for its window; an intent outside of it is refused, as whoever sent it did not wait. What takes a
# failed or cancelled change back does not wait: half a change is worse than one at the wrong hour.
package tmf.windows

week := 604800

day := 86400

weekdays := {"sunday": 0, "monday": 1, "tuesday": 2, "wednesday": 3, "thursday": 4, "friday": 5, "saturday": 6}

# Seconds since Sunday, 0 o'clock: the epoch began on a Thursday.
now := (input.environment.time + (4 * day)) % week

asked if {
	input.resource.kind == "intent"
	not taken_back
}

taken_back if input.resource.purpose == "undo"

asked if input.action == "fulfil"

# Where a change is made; who does not say where keeps to every window of its tenant.
sites contains site if site := input.resource.sites[_]

sites contains input.resource.site if input.resource.site != ""

places := sites if count(sites) > 0

places := object.keys(object.get(data.windows, [input.resource.tenant], {})) if count(sites) == 0

windows(site) := found if {
	its := object.get(data.windows, [input.resource.tenant], {})
	found := object.get(its, [site], object.get(its, "*", null))
	found != null
}

closed contains site if {
	data.windows != {}
	asked
	some site in places
	windows(site)
	not open(site)
}

open(site) if {
	some window in windows(site)
	some name in window.days
	begun(window, name) < length(window)
}

# Seconds since a window began for the last time.
begun(window, name) := ((now + week) - ((weekdays[name] * day) + seconds(window.from))) % week

# One that ends before it begins ends on the next day, and one that ends when it begins lasts a day.
length(window) := ((((seconds(window.to) + day) - seconds(window.from)) - 1) % day) + 1

seconds([hour, minute]) := (hour * 3600) + (minute * 60)

opening(site) := input.environment.time + min({wait |
	some window in windows(site)
	some name in window.days
	wait := week - begun(window, name)
})

waits := max({opening(site) | some site in closed}) if {
	count(closed) > 0
	every site in closed { opening(site) }
}

default obligations := {}

obligations := {"notBefore": waits} if input.action == "fulfil"

reasons contains sprintf("the change windows of tenant %v at %v never open", [input.resource.tenant, site]) if {
	input.action == "fulfil"
	some site in closed
	not opening(site)
}

reasons contains sprintf("tenant %v is changed at %v in its change windows only, and none is open", [input.resource.tenant, site]) if {
	input.resource.kind == "intent"
	input.channel == "adapter"
	some site in closed
}
