"""The demonstration: the three lines told and checked from outside, over REST, datagrams and NETCONF."""
