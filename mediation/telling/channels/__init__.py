"""The channels that ship, a module for each: what is told leaves through them, beside the events that hubs are told."""
