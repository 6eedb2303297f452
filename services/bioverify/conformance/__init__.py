"""What every verifier owes its callers, in whatever language it is written: `bioverify verifier test HOST:PORT`.

A check asks a running service over a socket, knowing the contract alone, and says what it found. It passes, it fails
with what was wrong, where the contract asks for it and what to do, or it could not be shown: a rule about a limit of a
gigabyte, or about a queue that a quick verifier never has, is not called kept.
"""

from bioverify.conformance.probes import from_items
from bioverify.conformance.suite import CHECKS, Check, Report, Result, Status, Unreachable, run

__all__ = ["CHECKS", "Check", "Report", "Result", "Status", "Unreachable", "from_items", "run"]
