"""What a run would do: for `bioverify train --dry-run`.

Of every source of the recipe: the first prompt that the run would draw, and a well-formed completion of it, scored by
the services if they are up. The completion is made here: it shows how answers are rewarded, not how good a model is.
What it takes on H100s is by formula.
"""

from __future__ import annotations

from typing import Any

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import Client, ClientError, Message, ScoreItem, TlsIdentity
from bioverify.core.completions import PromptForm
from bioverify.core.recipes import Recipe
from bioverify.core.tasks import YES_NO
from bioverify_trainer.dataset import DatasetError, Draw, open_prompts
from bioverify_trainer.estimate import NoEstimateError, estimate
from bioverify_trainer.preset import Preset
from bioverify_trainer.prompts import make_prompt
from bioverify_trainer.reward import sample_record

_MOST_DRAWS = 10_000


def planned_estimate(preset: Preset) -> dict[str, Any] | str:
    """Memory, time and price, or why they are not known."""
    try:
        return estimate(preset)
    except NoEstimateError as error:
        return f"none: {error}"


def plan_sources(recipe: Recipe, preset: Preset, store: ArtifactStore, target: str) -> list[dict[str, Any]]:
    """One entry per source: name, share, label, prompt, and ``example`` with reward and parts, or why there is none."""
    try:
        draws = _first_draws(recipe, preset, store)
    except (ArtifactError, DatasetError) as error:
        return [{"source": source.name, "share": source.share, "prompt": f"none: {error}"} for source in recipe.sources]
    items = {}
    for name, draw in draws.items():
        turns = make_prompt(
            draw.task,
            draw.prompt_form,
            example_turns=preset.prompts.example_turns,
            chain_of_thought=preset.prompts.chain_of_thought,
        )
        items[name] = ScoreItem(
            id=draw.prompt_id,
            completion=_well_formed(draw),
            prompt=[Message(turn["role"], turn["content"]) for turn in turns],
            task=draw.task,
            source=draw.source,
            prompt_form=draw.prompt_form,
        )
    try:
        with Client(target, tls=TlsIdentity.from_environment()) as client:
            scored = client.score(list(items.values()), recipe, deadline_s=preset.rewards.deadline_s).rewards
        examples = [sample_record(0, item, reward) for item, reward in zip(items.values(), scored, strict=True)]
    except ClientError as error:
        examples = [{"completion": item.completion, "reward": f"not scored: {error}"} for item in items.values()]
    shares = {source.name: source.share for source in recipe.sources}
    return [
        {
            "source": name,
            "share": shares.get(name, 1.0),
            "label": draws[name].label,
            "prompt": [{"role": turn.role, "content": turn.content} for turn in item.prompt],
            "example": {key: example[key] for key in ("completion", "reward", "parts") if key in example},
        }
        for (name, item), example in zip(items.items(), examples, strict=True)
    ]


def _first_draws(recipe: Recipe, preset: Preset, store: ArtifactStore) -> dict[str, Draw]:
    """The first draw of each source, by its name."""
    prompts = open_prompts(store, recipe, seed=preset.grpo.seed, wanted=preset.prompts)
    wanted = [source.name for source in recipe.sources] or [""]
    found: dict[str, Draw] = {}
    for index in range(_MOST_DRAWS):
        draw = prompts.draw(index)
        found.setdefault(draw.source, draw)
        if len(found) == len(wanted):
            break
    return {name: found[name] for name in wanted if name in found}


def _well_formed(draw: Draw) -> str:
    genes = " and ".join(draw.task.genes)
    knowledge = f"<gene_info> {genes} are genes. </gene_info> " if draw.prompt_form is PromptForm.GENE_INFO else ""
    answer = (draw.task.words or YES_NO).affirming
    return f"{knowledge}<think> {genes} may belong together. </think> <answer> {answer} </answer>"
