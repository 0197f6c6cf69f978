"""Policies about TM Forum resources."""
