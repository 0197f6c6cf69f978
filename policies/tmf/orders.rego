# What an order asks for, for the policies that look into it: its items at every depth.
package tmf.orders

asked if input.resource.kind == "productOrder"

nested if input.body.productOrderItem[_].productOrderItem[_]

# not `some .. in`: engines differ in what they say to a body that holds something else here
items := [item | item := input.body.productOrderItem[_]] if {
	input.resource.kind == "productOrder"
	not nested
} else := [item |
	walk(input.body.productOrderItem, [path, item])
	is_element(path)
] if {
	input.resource.kind == "productOrder"
}

# At the top, or in a list of parts.
is_element(path) if count(path) == 1

is_element(path) if {
	path[count(path) - 2] == "productOrderItem"
	is_number(path[count(path) - 1])
}

# Those that add or change something: to take a thing away costs nothing and needs no leave.
growing := [item |
	item := items[_]
	not leaving(item)
]

leaving(item) if item.action in {"delete", "noChange"}

characteristics(name) := {characteristic.value |
	characteristic := growing[_].product.productCharacteristic[_]
	characteristic.name == name
}

# How many of an item are ordered. No number takes anything away from another.
quantity(item) := item.quantity if {
	is_number(item.quantity)
	item.quantity > 1
} else := 1
