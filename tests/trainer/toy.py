"""A policy so small that it can learn something while one waits: the base rates of 32 genes.

Every word is one token, so a measured gene is one embedding. The warm-up teaches the form, with answers by chance, and
to repeat the gene right before the answer. It goes on, with a falling rate, until nothing but the answer is left to
chance: after half of it one completion in eight named another gene or missed a tag, the gradient of these rare tokens
drowned that of the answers, and a hundred steps taught nothing. Temperature .7 makes them rarer still, and leaves an
answer of one half at one half. Four of four seeds learn: docs/training.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bioverify.core.completions import PromptForm
from bioverify.core.tasks import DifferentialExpression
from bioverify_trainer.evaluate.questions import Rows
from bioverify_trainer.prompts import make_prompt

N_GENES = 32
WARM_UP_STEPS = 300
# The question alone: what it says beside the genes is the same for all.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <ask>{% endif %}"
)


def few_genes(table: pa.Table) -> pa.Table:
    """The rows of the 16 genes that respond most often and of the 16 that respond least, by the training rows."""
    table = table.filter(pc.equal(table["task_kind"], "differential_expression"))
    training = table.filter(pc.equal(table["split"], "train"))
    gene = np.array(training["measured_gene"].to_pylist())
    label = training["label"].to_numpy()
    names = np.unique(gene)
    rate = np.array([label[gene == name].mean() for name in names])
    order = names[np.argsort(rate, kind="stable")]
    chosen = [*order[: N_GENES // 2], *order[-N_GENES // 2 :]]
    return table.filter(pc.is_in(table["measured_gene"].cast(pa.string()), pa.array(chosen)))


def completion(gene: str, answer: str) -> str:
    return f"<think> I think about the gene {gene} </think> <answer> {gene} {answer} </answer>"


def make_toy_policy(folder: Path, training: Rows, *, seed: int) -> None:
    """Write a checkpoint whose completions are well formed and whose answers are chance."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    genes = sorted({training.screens.genes[code] for code in np.unique(training.measured_gene)})
    tokenizer = _tokenizer(training.task(0), genes)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(WARM_UP_STEPS):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / WARM_UP_STEPS)
        tasks = [training.task(int(row)) for row in rng.integers(len(training), size=64)]
        texts, starts = [], []
        for task in tasks:
            prompt = render(tokenizer, task)
            texts.append(f"{prompt} {completion(task.measured_gene, str(rng.choice(['yes', 'no'])))} <end>")
            starts.append(len(tokenizer(prompt)["input_ids"]))
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for row, start in enumerate(starts):
            labels[row, :start] = -100
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def render(tokenizer: PreTrainedTokenizerFast, task: DifferentialExpression) -> str:
    turns = make_prompt(task, PromptForm.ANSWER)
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def _tokenizer(task: DifferentialExpression, genes: Sequence[str]) -> PreTrainedTokenizerFast:
    """Words between spaces; perturbations are all alike to it."""
    question = task.question.replace(task.perturbation, "").replace(f"{task.measured_gene}?", "").split()
    lines = ["k562", "rpe1", "hepg2", "jurkat"]
    words = [*question, *completion("", "yes").split(), "no", "?", *lines, *genes]
    vocabulary = {
        word: number for number, word in enumerate(["<unk>", "<pad>", "<end>", "<ask>", *dict.fromkeys(words)])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("?", "isolated")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", padding_side="right"
    )
    fast.chat_template = TEMPLATE
    return fast
