"""`bioverify ask` and `chat`: put a question to a checkpoint, and let the verifiers say what they make of it."""

from __future__ import annotations

from collections.abc import Callable

from bioverify.client import Client, Message, ScoreItem, TlsIdentity
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.questions import parse_task
from bioverify.core.tasks import Task
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn, make_prompt, system_turn

VERIFYING_RECIPE = "all"


def conversation(question: str, prompts: PromptPreset) -> tuple[list[Turn], Task | None]:
    """The prompt of a question, and its task if it is asked in a known form.

    A question of another form goes under the same system turn as it stands, and no verifier will apply to it.
    """
    task = parse_task(question)
    if task is not None:
        return (
            make_prompt(
                task,
                PromptForm.ANSWER,
                example_turns=prompts.example_turns,
                chain_of_thought=prompts.chain_of_thought,
            ),
            task,
        )
    return [system_turn(chain_of_thought=prompts.chain_of_thought), {"role": "user", "content": question}], None


def verify(target: str, turns: list[Turn], task: Task | None, completion: str, tell: Callable[[str], None]) -> None:
    """Say the verdict, then what each verifier makes of the completion, one line each. Raises ClientError."""
    item = ScoreItem(
        id="1", completion=completion, prompt=[Message(turn["role"], turn["content"]) for turn in turns], task=task
    )
    with Client(target, tls=TlsIdentity.from_environment()) as client:
        [reward] = client.score([item], VERIFYING_RECIPE).rewards
    tell(reward.verdict)
    for part in reward.parts:
        outcome = part.outcome
        if isinstance(outcome, Scored):
            evidence = " · ".join(
                one.text + (" (simulated)" if one.simulated else "") for one in outcome.evidence if one.text
            )
            tell(f"{part.term.label}: {'–' if part.value is None else f'{part.value:.2f}'}  {evidence}")
        elif isinstance(outcome, NotApplicable | Failed):
            tell(f"{part.term.label}: {outcome.reason}  {outcome.detail}")
    tell(
        "no reward: " + reward.unscorable_because
        if reward.reward is None
        else f"reward: {reward.reward:.2f} of {reward.highest:g}"
    )
