"""YANG modules of the lab's element that real devices bring themselves."""
