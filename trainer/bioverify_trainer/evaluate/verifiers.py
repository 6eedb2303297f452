"""What one verifier says of completions: beliefs for a baseline, and how far the claims of thoughts are supported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bioverify.client import Client, ClientError, ScoreItem, TlsIdentity
from bioverify.core.metrics import Floats
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.recipes import one_verifier
from bioverify.core.tasks import Task
from bioverify_trainer.evaluate.answers import CLAIM_SUMS
from bioverify_trainer.evaluate.questions import EvaluationError

CLAIMS = "claims"
_CHUNK = 2048
_DEADLINE_S = 120.0


def outcomes(verifier: str, asked: Sequence[tuple[Task, str]], target: str) -> Iterator[Scored | NotApplicable]:
    """What the verifier says of each question and completion. Raises EvaluationError at a fault, ClientError."""
    recipe = one_verifier(verifier)
    with Client(target, tls=TlsIdentity.from_environment(), warns=False) as client:
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            items = [ScoreItem(str(row), completion, task=task) for row, (task, completion) in enumerate(chunk)]
            for reward in client.score(items, recipe, deadline_s=_DEADLINE_S, with_evidence=False).rewards:
                outcome = reward.parts[0].outcome if reward.parts else None
                if outcome is None or isinstance(outcome, Failed):
                    raise EvaluationError(f"{verifier}: {reward.unscorable_because or 'no reply'}; run it again")
                yield outcome


def claim_sums(asked: Sequence[tuple[Task, str]], target: str) -> Floats:
    """Of each question and completion a row of `CLAIM_SUMS`; not applicable is a row of zeros."""
    found = np.zeros((len(asked), len(CLAIM_SUMS)))
    for row, outcome in enumerate(outcomes(CLAIMS, asked, target)):
        if isinstance(outcome, Scored):
            said = outcome.components
            found[row] = (1, 1, said["precision"], said["contradicted"]) if said["claims"] else (1, 0, 0, 0)
    return found


def has_claims(target: str, *, wanted: bool | None) -> bool:
    """Whether claims are to be checked: as wanted; None: if the aggregator's verifier answers.

    Raises EvaluationError if they are wanted and cannot be.
    """
    if wanted is False:
        return False
    why = "it does not ask this verifier"
    try:
        with Client(target, tls=TlsIdentity.from_environment()) as client:
            for listed in client.list_verifiers():
                if listed.name == CLAIMS:
                    if listed.is_ready:
                        return True
                    why = listed.failure.detail if listed.failure else "it is not ready"
    except ClientError as error:
        why = str(error)
    if wanted:
        raise EvaluationError(
            f"--claims: no verifier {CLAIMS} answers at {target} ({why}). Run: bioverify data build {CLAIMS} && "
            "bioverify up; or name another stack by --target"
        )
    return False
