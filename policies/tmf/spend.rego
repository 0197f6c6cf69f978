# What one order may cost in a month by its tenant's contract. What the order says of prices is held against the cap: its
# own total or the sum of its items, whichever is more, and of each price the larger amount (with or without tax), as
# often as it is charged in a month. Amounts are compared in whole thousandths, so that no sum is off by the way in which
# fractions are kept.
package tmf.spend

comes_to := max([
	sum([due(price) | price := input.body.orderTotalPrice[_]]),
	sum([of_item(item) | item := data.tmf.orders.growing[_]]),
]) if {
	priced
}

of_item(item) := max([data.tmf.orders.quantity(item) * sum(dues(item, "itemPrice")), sum(dues(item, "itemTotalPrice"))])

dues(body, member) := [due(price) | price := body[member][_]]

capped if is_number(data.tmf.limits.contract.monthly)

# A surcharge adds to its price; a discount, as any negative amount, takes nothing away.
due(price) := times(price) * (largest(price) + sum([largest(change) | change := price.priceAlteration[_]]))

largest(charge) := max({0} | {thousandths(money) | money := charge.price[_]})

thousandths(money) := round(money.value * 1000) if money.value < 1000000000000 # above, engines count differently

thousandths(money) := 1000000000000000 if money.value >= 1000000000000

# is_string, as engines differ in what they make of a call with something else
times(price) := data.periods[lower(price.recurringChargePeriod)] if is_string(price.recurringChargePeriod)

times(price) := 1 if not price.recurringChargePeriod

reasons contains sprintf("the order comes to %v %v a month, above the %v %v of tenant %v's contract", [comes_to / 1000, data.currency, cap, data.currency, input.subject.tenant]) if {
	priced
	capped
	cap := data.tmf.limits.contract.monthly
	not comes_to <= cap * 1000
}

reasons contains sprintf("prices of tenant %v's contract are in %v, so %v cannot be held against it", [input.subject.tenant, data.currency, unit]) if {
	priced
	unit := charges[_].price[_].unit
	unit != data.currency
}

reasons contains sprintf("%v is no period of a price: say one of %v", [period, concat(", ", sort(object.keys(data.periods)))]) if {
	priced
	period := charges[_].recurringChargePeriod
	not is_period(period)
}

is_period(period) if {
	is_string(period)
	data.periods[lower(period)]
}

# What no price is said of is looked into no further.
priced if {
	input.body.orderTotalPrice[_]
	data.tmf.orders.asked
}

priced if {
	item := data.tmf.orders.growing[_]
	item[["itemPrice", "itemTotalPrice"][_]][_]
}

charges contains charge if {
	data.tmf.orders.asked
	charge := input.body.orderTotalPrice[_]
}

charges contains charge if {
	data.tmf.orders.asked
	charge := data.tmf.orders.growing[_].itemPrice[_]
}

charges contains charge if {
	data.tmf.orders.asked
	charge := data.tmf.orders.growing[_].itemTotalPrice[_]
}

reasons contains sprintf("no contract says how much tenant %v may spend in a month", [input.subject.tenant]) if {
	priced
	not capped
}
