"""What the policy is told before it answers: system prompts, example turns, the question.

The system prompt and the chain-of-thought suffix are the published rbio ones. The wording of rbio's ``<gene_info>``
prompt is not known, so that one is ours. Example turns (a question and a well-formed answer, as earlier turns of the
conversation) are ours too: a model of 135 M parameters follows an example when it does not follow an instruction.
Questions are `bioverify.core.tasks`' own, with the cell line spelled as PerturbQA spells it ("k562").
"""

from __future__ import annotations

from bioverify.core.completions import PromptForm
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, Task, TaskKind

RBIO_SYSTEM = (
    "A conversation between User and Biologist. The user asks a question, and the Biologist solves it. The biologist "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>."
)
CHAIN_OF_THOUGHT_SUFFIX = " The Biologist provides the reasoning step-by-step."
GENE_INFO_SYSTEM = (
    "A conversation between User and Biologist. The user asks a question, and the Biologist solves it. The biologist "
    "first writes down what is known about the function of each gene in the question, then thinks about the reasoning "
    "process in the mind and then provides the user with the answer. The knowledge, the reasoning process and the "
    "answer are enclosed within <gene_info> </gene_info>, <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <gene_info> knowledge of the genes here </gene_info> <think> reasoning process here </think> <answer> "
    "answer here </answer>."
)


Turn = dict[str, str]
"""One message of a conversation as chat templates read it: ``role`` and ``content``."""


# Textbook cases, one of each answer. The thoughts are short, because a small model copies their length as well.
_EXAMPLES: dict[TaskKind, tuple[tuple[Task, str, str, str], ...]] = {
    TaskKind.DIFFERENTIAL_EXPRESSION: (
        (
            DifferentialExpression("GATA1", "HBG1", "k562"),
            "GATA1 is an erythroid transcription factor. HBG1 is a globin gene.",
            "GATA1 switches on HBG1.",
            "yes",
        ),
        (
            DifferentialExpression("OR2T8", "ACTB", "k562"),
            "OR2T8 is an olfactory receptor. ACTB is cytoskeletal actin.",
            "OR2T8 has no part in making ACTB.",
            "no",
        ),
    ),
    TaskKind.DIRECTION_OF_CHANGE: (
        (
            DirectionOfChange("GATA1", "HBG1", "k562"),
            "GATA1 is an erythroid transcription factor. HBG1 is a globin gene.",
            "GATA1 switches on HBG1.",
            "decrease",
        ),
        (
            DirectionOfChange("KEAP1", "NQO1", "k562"),
            "KEAP1 holds back NRF2. NQO1 is a target of NRF2.",
            "KEAP1 holds back NQO1.",
            "increase",
        ),
    ),
    TaskKind.CO_EXPRESSION: (
        (
            CoExpression("HBA1", "HBB"),
            "HBA1 and HBB are the chains of haemoglobin.",
            "HBA1 and HBB are made together in red cells.",
            "yes",
        ),
        (
            CoExpression("HBB", "ALB"),
            "HBB is a chain of haemoglobin. ALB is serum albumin.",
            "HBB is made in red cells and ALB in the liver.",
            "no",
        ),
    ),
}
MOST_EXAMPLE_TURNS = 2


def make_prompt(task: Task, form: PromptForm, *, example_turns: int = 0, chain_of_thought: bool = False) -> list[Turn]:
    """The conversation up to the completion: system turn, example turns, question.

    ``example_turns``: 0 to 2. An open question about genes has no example: its list is then without any.
    """
    turns = [system_turn(form, chain_of_thought=chain_of_thought)]
    for example, gene_info, thoughts, answer in _EXAMPLES.get(task.kind, ())[:example_turns]:
        knowledge = f"<gene_info> {gene_info} </gene_info> " if form is PromptForm.GENE_INFO else ""
        turns.append(_turn("user", example.question))
        turns.append(_turn("assistant", f"{knowledge}<think> {thoughts} </think> <answer> {answer} </answer>"))
    turns.append(_turn("user", task.question))
    return turns


def system_turn(form: PromptForm = PromptForm.ANSWER, *, chain_of_thought: bool = False) -> Turn:
    system = GENE_INFO_SYSTEM if form is PromptForm.GENE_INFO else RBIO_SYSTEM
    return _turn("system", system + (CHAIN_OF_THOUGHT_SUFFIX if chain_of_thought else ""))


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
