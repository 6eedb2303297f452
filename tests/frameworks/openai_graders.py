"""OpenAI's own client, running a grader at the gateway."""

from __future__ import annotations

from typing import Any

import openai

from tests.frameworks.rollouts import HTTP, KNOWN, QUESTION, RECIPE, UNKNOWN, error_of, task_of, tell

client = openai.OpenAI(base_url=f"{HTTP}/v1", api_key="none", max_retries=0)


def run(gene: str, text: str, **item: Any) -> Any:
    grader: Any = {"type": "bioverify", "name": "screen", "recipe": RECIPE}
    row = item or {"messages": [{"role": "user", "content": QUESTION.format(gene)}]}
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=text, item=row)


answers = [run(*rollout) for rollout in KNOWN]
tell(
    rewards=[answer.reward for answer in answers],
    errors=[error for answer in answers for error in answer.metadata.errors.to_dict().values()],
    by_field=run("A", KNOWN[0][1], bioverify=task_of("A")).reward,
    unscorable=error_of(lambda: run(*UNKNOWN)),
)
