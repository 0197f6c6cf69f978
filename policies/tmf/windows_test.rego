package tmf.windows_test

import data.main

# Saturday, 2026-11-28, 0 o'clock UTC
saturday := 1795824000

hour := 3600

asked(action, kind, channel, more, time) := {
	"subject": {"id": "convergedon", "tenant": "acme", "roles": ["system"]},
	"action": action,
	"resource": object.union({"kind": kind, "tenant": "acme"}, more),
	"body": {},
	"channel": channel,
	"environment": {"time": time},
}

order(sites, time) := asked("fulfil", "productOrder", "flow", {"sites": sites}, time)

intent(site, time) := asked("perform", "intent", "adapter", {"device": "pe1", "deviceTenant": "acme", "purpose": "order", "site": site}, time)

night := [{"days": ["saturday", "sunday"], "from": [22, 30], "to": [4, 0]}]

at_berlin := {"acme": {"berlin-1": night}}

test_without_windows_it_is_always_time if {
	decision := main.decision with input as order(["berlin-1"], saturday)
	decision.allow
	decision.obligations == {}
	main.decision.allow with input as intent("berlin-1", saturday)
}

test_an_order_waits_for_its_window if {
	decision := main.decision with input as order(["berlin-1"], saturday) with data.windows as at_berlin
	decision.allow
	decision.obligations == {"notBefore": saturday + (22.5 * hour)}
}

test_an_order_in_its_window_goes_on if {
	every time in [saturday + (22.5 * hour), saturday + (23 * hour), saturday + (27 * hour), (saturday + (28 * hour)) - 1, saturday + (49 * hour)] {
		decision := main.decision with input as order(["berlin-1"], time) with data.windows as at_berlin
		decision.obligations == {}
	}
}

test_the_window_after_the_last_of_the_week_is_next_weeks if {
	decision := main.decision with input as order(["berlin-1"], saturday + (52 * hour)) with data.windows as at_berlin
	decision.obligations == {"notBefore": saturday + ((22.5 + 168) * hour)}
}

test_an_order_waits_for_the_last_of_its_sites if {
	both := {"acme": {"berlin-1": night, "*": [{"days": ["saturday"], "from": [6, 0], "to": [8, 0]}]}}
	decision := main.decision with input as order(["berlin-1", "hamburg-1"], saturday) with data.windows as both
	decision.obligations == {"notBefore": saturday + (22.5 * hour)}
	other := main.decision with input as order(["hamburg-1"], saturday) with data.windows as both
	other.obligations == {"notBefore": saturday + (6 * hour)}
}

test_a_window_of_a_whole_day if {
	every to in [[0, 0], [24, 0]] {
		windows := {"acme": {"*": [{"days": ["saturday"], "from": [0, 0], "to": to}]}}
		main.decision.allow with input as intent("berlin-1", saturday) with data.windows as windows
		main.decision.allow with input as intent("berlin-1", (saturday + (24 * hour)) - 1) with data.windows as windows
		not main.decision.allow with input as intent("berlin-1", saturday + (24 * hour)) with data.windows as windows
		not main.decision.allow with input as intent("berlin-1", saturday - 1) with data.windows as windows
	}
}

test_windows_that_never_open_refuse if {
	reasons := main.decision.reasons with input as order(["berlin-1"], saturday) with data.windows as {"acme": {"berlin-1": []}}
	reasons == ["the change windows of tenant acme at berlin-1 never open"]
}

test_an_intent_outside_of_the_window_is_refused if {
	reasons := main.decision.reasons with input as intent("berlin-1", saturday) with data.windows as at_berlin
	reasons == ["tenant acme is changed at berlin-1 in its change windows only, and none is open"]
	main.decision.allow with input as intent("berlin-1", saturday + (23 * hour)) with data.windows as at_berlin
	main.decision.allow with input as intent("hamburg-1", saturday) with data.windows as at_berlin
}

test_who_does_not_say_where_keeps_to_all_windows if {
	not main.decision.allow with input as intent("", saturday) with data.windows as at_berlin
}

test_what_is_taken_back_does_not_wait if {
	undo := object.union(intent("berlin-1", saturday), {"resource": {"purpose": "undo"}})
	main.decision.allow with input as undo with data.windows as at_berlin
}

test_without_a_time_no_window_is_open if {
	timeless := object.remove(intent("berlin-1", saturday), ["environment"])
	not main.decision.allow with input as timeless with data.windows as at_berlin
}
