"""`bioverify ask` and `chat`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bioverify import ports
from bioverify_trainer.cli.options import OwnPresetOption, SetOption, TargetOption, quieten, refuse, resolve_preset

ModelOption = Annotated[
    str, typer.Option(help="A checkpoint or adapter folder, hub id, smollm2, or a published one: rbio1-exp etc.")
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Show what each verifier says of the answer.")]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="The most tokens that an answer may have.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Of sampling; 0 answers greedily.")]


def ask(
    question: Annotated[str, typer.Argument(help="As in: Is a knockdown of AARS in k562 cells likely to …")],
    model: ModelOption = "smollm2",
    verify: VerifyOption = False,
    target: TargetOption = ports.AGGREGATOR,
    preset: OwnPresetOption = None,
    changes: SetOption = None,
    max_tokens: MaxTokensOption = 256,
    temperature: TemperatureOption = 0.0,
) -> None:
    """Put one question to a model.

    The forms of questions that verifiers read: docs/reading.md.

    Example: bioverify ask "Is gene CD3D likely to be co-expressed with gene CD3E?" --verify
    """
    answer = _asker(model, target, preset, changes, max_tokens, temperature, verify=verify)
    answer(question)


def chat(
    model: ModelOption = "smollm2",
    verify: VerifyOption = False,
    target: TargetOption = ports.AGGREGATOR,
    preset: OwnPresetOption = None,
    changes: SetOption = None,
    max_tokens: MaxTokensOption = 256,
    temperature: TemperatureOption = 0.0,
) -> None:
    """Put questions to a model, one by one.

    Each stands on its own; an empty line ends the chat.

    Example: bioverify chat --model runs/first/model --verify
    """
    answer = _asker(model, target, preset, changes, max_tokens, temperature, verify=verify)
    while question := typer.prompt("?", default="", show_default=False, prompt_suffix=" ").strip():
        answer(question)


def _asker(
    model: str,
    target: str,
    preset: str | None,
    changes: list[str] | None,
    max_tokens: int,
    temperature: float,
    *,
    verify: bool,
) -> Callable[[str], None]:
    """Opens the model; what it returns prints the answer to a question as it is written."""
    chosen = resolve_preset(model, preset, changes)
    quieten()
    from bioverify.client import ClientError
    from bioverify_trainer import asking
    from bioverify_trainer.model.generation import Shown, complete
    from bioverify_trainer.model.policy import PolicyError, open_for, use_threads

    use_threads(chosen.launcher.threads)
    try:
        policy = open_for(chosen, model)
    except PolicyError as error:
        refuse(error)

    def answer(question: str) -> None:
        turns, task = asking.conversation(question, chosen.prompts)
        [completion] = complete(policy, [turns], max_tokens=max_tokens, temperature=temperature, streamer=Shown(policy))
        if verify:
            try:
                asking.verify(target, turns, task, completion, typer.echo)
            except ClientError as error:
                refuse(error)

    return answer
