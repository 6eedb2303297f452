"""One belief made of several verifiers' beliefs: a small logistic stack per cell line and kind of question.

    logit(consensus) = Σ over members of weight · logit(belief) + offset

Weights are fitted to beliefs about training rows that no member was trained on (``artifacts/consensus.py``), so two
members that say the same share their weight instead of counting twice. Every set of two or more members has weights of
its own: a member that has nothing to say is left out, not guessed. A lone belief is no consensus. A member that failed
is no such member: what it would have said may come yet, and the number would then be another one, so the consensus
fails with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bioverify.core.answers import Answer
from bioverify.core.cell_lines import line_name
from bioverify.core.outcomes import BASE_RATE, Evidence, Failed, NotApplicable, Outcome, Scored
from bioverify.core.tasks import Knockdown, Task, TaskKind, canonical_cell_line, p_of
from bioverify.core.verifier import score_by_belief, without_builds

CONSENSUS = "consensus"
"""Its name as a recipe's term, where verifiers' names stand."""
BELIEF_DIGITS = 9
SUREST = 1e-6
"""Beliefs count as at least this far from 0 and 1: a verifier that rounds to certainty must not decide alone."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stack(_Strict):
    """Weights per member, for exactly this set of members."""

    cell_line: str
    task_kind: TaskKind
    weights: Annotated[dict[str, float], Field(min_length=2)]
    offset: float


class Consensus(_Strict):
    """``members``: name of each verifier and the fingerprint that it had when the weights were fitted."""

    members: dict[str, str]
    stacks: tuple[Stack, ...]

    def belief(self, task: Task | None, beliefs: Mapping[str, float]) -> float | None:
        """P("yes") or P("increase"); None if too little is known.

        ``beliefs``: by verifier, of those that scored the item; others than the members are ignored. None: fewer than
        two members, another kind of question, a line without weights. If a member *failed*, do not ask: what it
        would have said may still come, and the consensus would then change.
        """
        if not isinstance(task, Knockdown):
            return None
        known = frozenset(self.members.keys() & beliefs.keys())
        stack = self._by_question.get((canonical_cell_line(task.cell_line), task.kind, known))
        if stack is None:
            return None
        total = stack.offset + sum(weight * logit(beliefs[name]) for name, weight in stack.weights.items())
        return round(0.5 * (1.0 + math.tanh(0.5 * total)), BELIEF_DIGITS)

    def outcome(
        self,
        task: Task | None,
        answer: Answer | None,
        told: Mapping[str, Outcome],
        fingerprints: Mapping[str, str],
        *,
        with_evidence: bool,
    ) -> Outcome:
        """What the members' outcomes amount to, scored as a verifier's belief is.

        ``told``: of every member. ``fingerprints``: whose outcomes these are; weights that were fitted to others would
        give a number that nobody checked, so the consensus then fails (``outdated_weights``). A failed member makes it
        fail (``member_failed``). Not applicable: ``too_few_beliefs``.
        """
        for name, fitted in self.members.items():
            outcome = told[name]
            if isinstance(outcome, Failed):
                detail = f"{name} failed: {outcome.reason}. {outcome.detail}"
                return Failed("member_failed", detail, outcome.retryable)
            if without_builds(fingerprints[name]) != without_builds(fitted):
                detail = f"the weights were fitted to another version of {name}. Run: bioverify data build {CONSENSUS}"
                return Failed("outdated_weights", detail, retryable=False)
        scored = {name: told[name] for name in self.members}
        beliefs = {
            name: outcome.belief
            for name, outcome in scored.items()
            if isinstance(outcome, Scored) and outcome.belief is not None
        }
        belief = self.belief(task, beliefs)
        if belief is None or not isinstance(task, Knockdown):
            holders = ", ".join(beliefs) or "no verifier"
            return NotApplicable("too_few_beliefs", f"Of {', '.join(self.members)}, {holders} holds a belief here.")
        without_rows = {
            name for name in beliefs if isinstance(one := told[name], Scored) and one.components.get(BASE_RATE)
        }
        components = {BASE_RATE: 1.0} if without_rows == beliefs.keys() else {}
        evidence: tuple[Evidence, ...] = ()
        if with_evidence:
            line = line_name(canonical_cell_line(task.cell_line))
            text = f"{task.measured_gene} under knockdown of {task.perturbation} in {line}: consensus {p_of(task.kind)}"
            shown = ", ".join(
                f"{name} {one:.2f}" + (" (base rate)" if name in without_rows and not components else "")
                for name, one in beliefs.items()
            )
            text += f" = {belief:.2f} of {shown}"
            if components:
                text += f", base rate: none of them has a training row of {task.measured_gene} to answer from"
            simulated = any(
                one.simulated for outcome in scored.values() if isinstance(outcome, Scored) for one in outcome.evidence
            )
            evidence = (Evidence(text, source=CONSENSUS, simulated=simulated),)
        return score_by_belief(belief, answer, evidence, components)

    @cached_property
    def _by_question(self) -> dict[tuple[str, TaskKind, frozenset[str]], Stack]:
        return {(stack.cell_line, stack.task_kind, frozenset(stack.weights)): stack for stack in self.stacks}


def logit(belief: float) -> float:
    """log(p / (1 − p)), of a belief that is kept away from certainty."""
    kept = min(max(belief, SUREST), 1.0 - SUREST)
    return math.log(kept / (1.0 - kept))
