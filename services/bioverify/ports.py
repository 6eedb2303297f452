"""Where things listen on one machine if nobody says otherwise; containers and clusters name their own ports (50050 …).

All follow from one number. It lies below the ports that systems give to outgoing connections (Linux 32768 to 60999,
IANA 49152 to 65535): a service whose port such a connection holds could not start.
"""

from __future__ import annotations

HOST = "127.0.0.1"
PORT_BASE = 15050
"""The aggregator's port. The verifiers of the local stack are on the ports after it, metrics a thousand higher."""
METRICS_OFFSET = 1000
TRAINER_OFFSET = 8
# The aggregator, at most seven verifiers and the training service are before it.
GATEWAY_OFFSET = 9
OWN_VERIFIER_OFFSET = 11

AGGREGATOR = f"{HOST}:{PORT_BASE}"
VERIFIER = f"{HOST}:{PORT_BASE + 1}"
TRAINER = f"{HOST}:{PORT_BASE + TRAINER_OFFSET}"
GATEWAY = f"{HOST}:{PORT_BASE + GATEWAY_OFFSET}"
OWN_VERIFIER = f"{HOST}:{PORT_BASE + OWN_VERIFIER_OFFSET}"
"""A verifier of one's own, beside a stack that runs."""
