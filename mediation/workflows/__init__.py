"""Remediation as declared workflows: from an alarm to a repair that policy allows and the network proves.

A definition is YAML in the form of the CNCF Serverless Workflow DSL 1.0 (docs/workflows.md says which part of it).
``definitions`` reads one and ``checking`` says what is wrong with it; ``course`` decides, purely, what comes next, and
``running`` does and keeps it; ``remediation`` is the line, with what begins a run and makes it go on; ``rehearsal``
shows what a run would do.
"""
