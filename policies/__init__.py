"""Policies in Rego; a package follows its path."""
