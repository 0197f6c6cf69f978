"""Remediation as declared workflows: from an alarm to a repair that policy allows and the network proves.

A definition is YAML in the form of the CNCF Serverless Workflow DSL 1.0 (docs/workflows.md says which part of it).
``definitions`` reads one, ``checking`` says what is wrong with it before it is in force.
"""
