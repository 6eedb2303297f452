"""Verifiers as a service for reasoning in biology."""

# As in pyproject.toml, which a test asserts: asking the installed package for it takes 36 ms of CPU, and a health probe
# would pay them every ten seconds.
__version__ = "0.1.0"
