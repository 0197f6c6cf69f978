"""What happens when: the three lines of the gateway."""
