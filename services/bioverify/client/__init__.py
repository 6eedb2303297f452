"""Asking for rewards from Python: `Client` for plain code, `AsyncClient` for asyncio.

```python
from bioverify.client import Client, ScoreItem

with Client("127.0.0.1:15050") as client:
    batch = client.score([ScoreItem("1", completion, prompt=question)])
```

One `score` call may hold any number of items: it is split into as many requests as the aggregator's limits ask for, and
the members of a group always travel together. A fault of one verifier is data (`RewardPart.outcome` is `Failed`, the
reward may be None); only a call that reached no aggregator, or that it refused as a whole, raises `ClientError`.

Where the services ask for certificates: `Client(target, tls=TlsIdentity(certificate, key, ca))`, PEM files that may be
replaced while it is open.
"""

from bioverify.client.asynchronous import AsyncClient
from bioverify.client.errors import ClientError
from bioverify.client.synchronous import Client
from bioverify.client.training import TrainingClient
from bioverify.client.values import (
    ItemReward,
    ListedVerifier,
    Message,
    RewardDetails,
    RewardPart,
    ScoredBatch,
    ScoreItem,
    VerifierReport,
)
from bioverify.transport.tls import TlsError, TlsIdentity

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ItemReward",
    "ListedVerifier",
    "Message",
    "RewardDetails",
    "RewardPart",
    "ScoreItem",
    "ScoredBatch",
    "TlsError",
    "TlsIdentity",
    "TrainingClient",
    "VerifierReport",
]
