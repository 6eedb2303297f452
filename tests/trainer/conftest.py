"""A policy of a few thousand parameters, a table of questions, and live services to be rewarded by."""

import os

# Before torch is imported: two spinning threads on a busy machine cost ten times what they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe, Requirement, Source, Term
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify_trainer.preset import Preset
from bioverify_trainer.prompts import RBIO_SYSTEM
from tests.fixtures import servers
from tests.fixtures.artifacts import bundled_store, real_sources
from tests.fixtures.stack import stack

__all__ = ["bundled_store", "real_sources", "stack"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LINES = ("k562", "rpe1")


def question_table() -> pa.Table:
    """80 questions of either kind of response: one in eight positive, every fourth perturbation in the test split."""
    rows = [
        {
            "line": LINES[index % 2],
            "task_kind": kind,
            "perturbation": f"P{index // 8}",
            "measured_gene": f"G{index % 8}",
            "label": int(index % 8 == 0) if kind == "differential_expression" else index % 2,
            "split": "test" if (index // 8) % 4 == 3 else "train",
            "simulated": True,
        }
        for kind in ("differential_expression", "direction_of_change")
        for index in range(80)
    ]
    rows += [
        {
            "line": "",
            "task_kind": "co_expression",
            "perturbation": f"A{index}",
            "measured_gene": f"B{index}",
            "label": index % 2,
            "split": "train",
            "simulated": False,
        }
        for index in range(8)
    ]
    table = pa.Table.from_pylist(rows)
    return table.set_column(4, "label", table["label"].cast(pa.int8()))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "artifacts")
    with store.building("prompts") as folder:
        pq.write_table(question_table(), folder.path / "prompts.parquet")
        folder.commit(description="Questions of the tests.", license="none", sources=(), simulated=True)
    return store


@pytest.fixture
def mixed_store(tmp_path):
    """Questions in which every gene has both labels, in either split."""
    table = pa.Table.from_pylist(
        [
            {
                "line": "k562",
                "task_kind": "differential_expression",
                "perturbation": f"P{p}",
                "measured_gene": f"G{g}",
                "label": (p + g) % 2,
                "split": "test" if p < 4 else "train",
                "simulated": True,
            }
            for p in range(12)
            for g in range(4)
        ]
    )
    store = ArtifactStore(tmp_path / "mixed" / "artifacts")
    with store.building("prompts") as folder:
        pq.write_table(table.set_column(4, "label", table["label"].cast(pa.int8())), folder.path / "prompts.parquet")
        folder.commit(description="Questions of the tests.", license="none", sources=(), simulated=True)
    return store


@pytest.fixture(scope="session")
def verifier_targets() -> Iterator[dict[str, str]]:
    """Name → target of two verifiers that live as long as the tests: text reads completions, lookup the answer."""
    with servers.verifier("Text") as text, servers.verifier("Lookup") as lookup:
        yield {"text": text.target, "lookup": lookup.target}


@pytest.fixture(scope="session")
def lasting_target(verifier_targets: dict[str, str]) -> Iterator[str]:
    """An aggregator that nobody stops."""
    with servers.aggregator(verifier_targets) as aggregator:
        yield aggregator.target


@contextlib.contextmanager
def shipped_verifier(name: str, home: Path | None = None) -> Iterator[servers.Service]:
    """A verifier of ours as the command line serves it, over the artifacts below ``home`` if it reads any."""
    with servers.scratch_folder() as folder, (folder / "log").open("wb") as log:
        target = f"unix:{folder}/s"
        command = [sys.executable, "-m", "bioverify.cli", "serve", name, "--listen", target]
        environment = os.environ | ({"BIOVERIFY_HOME": str(home)} if home else {})
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        service = servers.Service(target, servers.VERIFIER_SERVICE, process, folder / "log")
        try:
            service.wait_until_ready()
            yield service
        finally:
            service.kill()


def format_verifier() -> contextlib.AbstractContextManager[servers.Service]:
    return shipped_verifier("format")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Text is required, lookup is not."""
    return Recipe(
        name="text-and-lookup",
        terms=(
            Term(verifier="text", weight=1, requirement=Requirement.REQUIRED),
            Term(verifier="text", component="vowels", weight=1, requirement=Requirement.REQUIRED),
        ),
        sources=(
            Source(
                name="questions",
                share=1,
                task_kind=TaskKind.DIFFERENTIAL_EXPRESSION,
                terms=(Term(verifier="lookup", weight=2, requirement=Requirement.OPTIONAL),),
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a tokenizer of its own, as a checkpoint folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>", "<answer>", "</answer>"]
    corpus = [RBIO_SYSTEM, DifferentialExpression("P1", "G1", "k562").question] * 8
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=320, special_tokens=specials[:4]))
    tokenizer.add_tokens(specials[4:])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
    )
    folder = tmp_path_factory.mktemp("policy")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_preset(tiny_policy: Path) -> Preset:
    return Preset.model_validate(
        {
            "name": "tiny",
            "policy": {"model": str(tiny_policy), "dtype": "float32"},
            "grpo": {
                "max_steps": 2,
                "per_device_train_batch_size": 4,
                "num_generations": 4,
                "max_completion_length": 12,
                "learning_rate": 1e-3,
                "lr_scheduler_type": "constant",
                "save_steps": 1,
                "bf16": False,
                "activation_checkpointing": False,
                "use_cpu": True,
            },
            "rewards": {"deadline_s": 5, "samples_per_step": 1, "max_unscorable_share": 1},
        }
    )
