"""The conformance kit: what every adapter promises, tried on it.

An adapter's author gives a ``Trial``; ``convergedon adapter check NAME`` runs all of it and writes a report, and
``suite.AdapterKit`` is the same as a pytest class. docs/adapters.md tells how an adapter is written with it.
"""

from convergedon.adapters.testing.trial import Trial, trial_of

__all__ = ["Trial", "trial_of"]
