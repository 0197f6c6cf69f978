"""The commands of the command line, one room for each group."""
