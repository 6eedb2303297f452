"""What only a GPU can say, in ten minutes on one H100: ``python -m benchmarks.h100 [--shape tiny] [STAGE …]``.

Made for a machine that is lent for minutes and has no network: ``python -m benchmarks.h100_folder`` packs what it
needs. Each stage is a process of its own with its own limit, so that one that fails or hangs costs no other, and prints
one line of JSON. ``--shape tiny`` rehearses all of it on a CPU in some minutes; its figures say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

_END = "<|end|>"
PUBLISHED_LEARNING_RATE = 5e-6
QUESTION = (
    "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3? "
    "The answer is either yes or no."
)
Figures = dict[str, Any]


def shape(name: str) -> Figures:
    """Of Qwen2.5-3B-Instruct, or of a model that a CPU trains in a moment."""
    if name == "3b":
        layers, hidden, intermediate, heads, keys, vocabulary = 36, 2048, 11008, 16, 2, 151_936
    else:
        layers, hidden, intermediate, heads, keys, vocabulary = 2, 64, 128, 4, 2, 512
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate}
    return sizes | {"num_attention_heads": heads, "num_key_value_heads": keys, "vocab_size": vocabulary}


def made(name: str, dtype: str = "bfloat16", layers: int | None = None) -> Any:
    """A model of that shape with random weights, on the device that is measured."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = shape(name) | ({"num_hidden_layers": layers} if layers else {})
    with torch.device(device()):
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=True))
    return model.to(getattr(torch, dtype))


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gb() -> float | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else None


def timed(work: Callable[[], Any]) -> float:
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def batch(rows: int, length: int, vocabulary: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(vocabulary, (rows, length), generator=generator).to(device())


# The stages. Each is given the shape's name and gives back its figures; what must hold is asserted.


def machine(name: str) -> Figures:
    import torch
    import transformers

    found: Figures = {"shape": name, "torch": torch.__version__, "transformers": transformers.__version__}
    found |= {"python": sys.version.split()[0], "cores": os.cpu_count(), "device": device()}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "card_gb": round(card.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return found


def same_loss(name: str) -> Figures:
    """The loss of the same weights and tokens: card against CPU, in float32 and bfloat16. Two layers of it."""
    import torch

    model = made(name, "float32", layers=2)
    tokens = batch(2, 128, shape(name)["vocab_size"])
    with torch.no_grad():
        on_card = float(model(input_ids=tokens, labels=tokens).loss)
        halved = float(model.to(torch.bfloat16)(input_ids=tokens, labels=tokens).loss)
        model = made(name, "float32", layers=2).cpu()
        on_cpu = float(model(input_ids=tokens.cpu(), labels=tokens.cpu()).loss)
    found = {"float32": abs(on_card - on_cpu), "bfloat16": abs(halved - on_cpu)}
    assert found["float32"] < 1e-4, found
    assert found["bfloat16"] < 2e-2, found
    return found


def master_weights(name: str) -> Figures:
    """Share of the weights that move in ten steps of 5e-6: bfloat16 alone, and beside a float32 copy."""
    import torch

    found = {}
    for kept in ("none", "float32"):
        model = made(name, "bfloat16", layers=2)
        weights = list(model.parameters())
        masters = [weight.detach().float() for weight in weights] if kept == "float32" else weights
        for master in masters:
            master.requires_grad_()
        optimizer = torch.optim.AdamW(masters, lr=PUBLISHED_LEARNING_RATE, weight_decay=0.0)
        before = [master.detach().clone() for master in masters]
        for step in range(10):
            tokens = batch(2, 64, shape(name)["vocab_size"]).roll(step)
            model(input_ids=tokens, labels=tokens).loss.backward()
            with torch.no_grad():
                for weight, master in zip(weights, masters, strict=True):
                    if master is not weight:
                        master.grad, weight.grad = weight.grad.float(), None
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for weight, master in zip(weights, masters, strict=True):
                    weight.copy_(master)
        moved = sum(int((master != old).sum()) for master, old in zip(masters, before, strict=True))
        found[f"moved_with_master_{kept}"] = round(moved / sum(weight.numel() for weight in weights), 4)
    assert found["moved_with_master_float32"] > found["moved_with_master_none"], found
    return found


def training_step(name: str) -> Figures:
    """Peak GB and seconds of forward, backward and optimiser with DeepSpeed's ZeRO-2 and 3, recomputed or not."""
    import torch

    if name == "tiny":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(alone())
    try:
        import deepspeed
    except ModuleNotFoundError:
        return {"left_out": "DeepSpeed is not installed here"}
    if device() == "cpu":
        # Its kernel for processes of one machine would be compiled first, for a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if device() == "cuda" else "gloo", verbose=False)
    rows, length = (4, 456) if name == "3b" else (2, 32)
    tokens = batch(rows, length, shape(name)["vocab_size"])
    found: Figures = {"rows": rows, "length": length}
    for stage in (2, 3):
        for recomputed in (False, True):
            model = made(name)
            if recomputed:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=PUBLISHED_LEARNING_RATE)
            config = {
                "train_micro_batch_size_per_gpu": rows,
                "bf16": {"enabled": True},
                "gradient_clipping": 1.0,
                "zero_optimization": {"stage": stage, "contiguous_gradients": True},
                "zero_allow_untested_optimizer": True,
            }
            engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            steps = [_step(engine, tokens) for _ in range(4)][1:]
            seconds = {part: round(median(step[part] for step in steps), 4) for part in steps[0]}
            found[f"zero{stage}{'_recomputed' if recomputed else ''}"] = seconds | {"peak_gb": peak_gb()}
            engine.destroy()
            del engine, optimizer, model
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return found


def _step(engine: Any, tokens: Any) -> dict[str, float]:
    loss: list[Any] = []
    forward = timed(lambda: loss.append(engine(input_ids=tokens, labels=tokens, use_cache=False).loss))
    backward = timed(lambda: engine.backward(loss[0]))
    return {"forward": forward, "backward": backward, "optimiser": timed(engine.step)}


def adapter_drift(name: str) -> Figures:
    """What merging and unmerging adapters of rank 32 on all layers leaves behind, in bfloat16 and in float32."""
    import torch
    from peft import LoraConfig, get_peft_model

    found: Figures = {"merges": 20}
    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for dtype in ("bfloat16", "float32"):
        model: Any = get_peft_model(made(name, dtype), LoraConfig(r=32, lora_alpha=64, target_modules=maps))
        layers: list[Any] = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
        with torch.no_grad():
            before = [layer.weight.detach().cpu().clone() for layer in layers]
            for _ in range(found["merges"]):
                for layer in layers:
                    layer.lora_B["default"].weight.add_(torch.randn_like(layer.lora_B["default"].weight), alpha=1e-3)
                model.merge_adapter()
                model.unmerge_adapter()
            changed = off = effect = 0.0
            for layer, old in zip(layers, before, strict=True):
                gap = layer.weight.float() - old.to(layer.weight.device).float()
                changed += int((gap != 0).sum())
                off += float(gap.square().sum())
                effect += float(layer.get_delta_weight("default").float().square().sum())
        weights = sum(old.numel() for old in before)
        found[dtype] = {"changed": round(changed / weights, 4), "drift_of_effect": round((off / effect) ** 0.5, 6)}
        del model, layers, before
    assert found["float32"]["drift_of_effect"] < found["bfloat16"]["drift_of_effect"] / 10, found
    return found


def writing(name: str) -> Figures:
    """Tokens per second of transformers' generation at 4, 32 and 256 sequences; vLLM is not carried."""
    model = made(name).eval()
    new = 64 if name == "3b" else 4
    found: Figures = {"new_tokens": new}
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "top_k": 0, "pad_token_id": 0}
    for rows in (4, 32, 256) if name == "3b" else (4, 8):
        prompts = batch(rows, 200 if name == "3b" else 16, shape(name)["vocab_size"])
        seconds = timed(lambda prompts=prompts: model.generate(prompts, **options))
        found[f"tokens_per_second_{rows}"] = round(rows * new / seconds, 1)
    return found | {"peak_gb": peak_gb()}


def rewards(name: str) -> Figures:
    """p50 and p95 of the services' answer for 32 and 512 completions, alone and while the card trains."""
    import bioverify
    from bioverify.client import Message, ScoreItem

    found: Figures = {}
    calls = 40 if name == "3b" else 4
    with bioverify.local() as client:
        for busy in (False, True):
            with training(name) if busy else contextlib.nullcontext():
                for n in (32, 512):
                    seconds = []
                    for call in range(calls):
                        # Each is new, so that no cache answers.
                        texts = [f"<think> {busy} {call} {row} </think> <answer> yes </answer>" for row in range(n)]
                        items = [
                            ScoreItem(str(row), text, [Message("user", QUESTION)]) for row, text in enumerate(texts)
                        ]
                        began = time.perf_counter()
                        client.score(items, "first-score")
                        seconds.append(time.perf_counter() - began)
                    cut = quantiles(seconds[1:], n=20)
                    key = f"{n}_items_{'while_training' if busy else 'alone'}"
                    found[key] = {"p50_ms": round(median(seconds[1:]) * 1e3, 1), "p95_ms": round(cut[-1] * 1e3, 1)}
    return found


@contextlib.contextmanager
def training(name: str) -> Iterator[None]:
    """Forward and backward passes in a thread, until it is left."""
    model = made(name)
    tokens = batch(2, 64, shape(name)["vocab_size"])
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            wait()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def checkpoint(name: str) -> Figures:
    """Seconds and GB/s of the weights and the optimiser's three float32 copies, written through to the disk."""
    import torch
    from safetensors.torch import save_file

    model = made(name)
    with tempfile.TemporaryDirectory() as folder:
        tensors = {key: weight.detach().cpu() for key, weight in model.state_dict().items() if key != "lm_head.weight"}
        copies = {key: weight.float() for key, weight in tensors.items()}
        seconds, size = 0.0, 0
        # One of the three copies at a time: the machine's disk may not hold all.
        for content in (tensors, copies):
            path = Path(folder) / "part.safetensors"

            def write(path: Path = path, content: dict[str, torch.Tensor] = content) -> None:
                save_file(content, path)
                with path.open("rb+") as file:
                    os.fsync(file.fileno())

            seconds += timed(write) * (3 if content is copies else 1)
            size += path.stat().st_size * (3 if content is copies else 1)
    return {
        "gb": round(size / 1e9, 2),
        "written_in_s": round(seconds, 2),
        "gb_per_second": round(size / 1e9 / seconds, 2),
    }


def unscored(name: str) -> Figures:
    """A row without a reward, then a whole step, which leaves every weight as it is. With DeepSpeed if it is there."""
    import importlib.util

    from safetensors.torch import load_file

    from bioverify import recipes
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.core.recipes import Recipe
    from bioverify_trainer.dataset import open_prompts
    from bioverify_trainer.model.policy import open_for
    from bioverify_trainer.preset import load_preset
    from bioverify_trainer.runs.folder import RunFolder
    from bioverify_trainer.train import make_trainer

    with services() as (target, scratch):
        write_policy(scratch / "policy")
        spread = importlib.util.find_spec("deepspeed") is not None and device() == "cuda"
        if spread:
            os.environ.update(alone())
        changes = [f"{key}={value}" for key, value in (SMALL | own_policy(scratch)).items()]
        block = json.dumps(load_preset("h100x1").launcher.deepspeed)
        preset = load_preset(
            "cpu", [*changes, "grpo.save_steps=1", *([f"launcher.deepspeed={block}"] if spread else [])]
        )
        recipe: Recipe = recipes.load("first-score")
        prompts = open_prompts(ArtifactStore.default(), recipe, seed=0, wanted=preset.prompts)
        folder = RunFolder(scratch / "run")
        folder.path.mkdir()
        trainer: Any = make_trainer(recipe, preset, open_for(preset), prompts, target=target, folder=folder)
        [reward] = trainer.reward_funcs

        def some(**arguments: Any) -> list[float | None]:
            found: list[float | None] = reward(**arguments)
            step = arguments["trainer_state"].global_step + 1
            return [None if step == 3 or (step == 2 and row == 1) else value for row, value in enumerate(found)]

        trainer.reward_funcs[0] = some
        trainer.train()
        kept = [load_file(folder.checkpoints / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2, 3, 4)]
        moved = [max(float((one[key] - other[key]).abs().max()) for key in one) for one, other in pairwise(kept)]
        assert moved[0] > 0, moved
        assert moved[1] == 0, moved
        return {"deepspeed": spread, "steps_2_3_4_moved_weights_by": moved}


def stopped(name: str) -> Figures:
    """SIGTERM in the middle of a run against the local services, and the rest of it by the same command."""
    del name
    with services() as (target, scratch):
        write_policy(scratch / "policy")
        folder = scratch / "run"
        command = [sys.executable, "-m", "bioverify_trainer", "train", "first-score", "--preset", "cpu"]
        command += ["--target", target, "--output", str(folder), "--restartable"]
        changes = SMALL | own_policy(scratch) | {"grpo.max_steps": 40}
        command += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        metrics = folder / "metrics.jsonl"
        with (scratch / "log").open("wb") as log:
            first = subprocess.Popen(command, stdout=log, stderr=log)
            while first.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
                time.sleep(0.05)
            first.send_signal(signal.SIGTERM)
            told = time.perf_counter()
            first.wait()
            stopped_s = time.perf_counter() - told
            done = metrics.read_text().count("\n") if metrics.exists() else 0
            second = subprocess.run(command, stdout=log, stderr=log, check=False)
        tail = (scratch / "log").read_text(errors="replace")[-1500:]
        assert (first.returncode, second.returncode) == (143, 0), (first.returncode, second.returncode, tail)
        assert 0 < done < 40, done
        steps = [json.loads(line) for line in metrics.read_text().splitlines()]
        assert [step["step"] for step in steps] == list(range(1, 41)), steps
        pace = {key: round(steps[-1][key], 4) for key in steps[-1] if key.startswith("pace/")}
        return {"stopped_in_s": round(stopped_s, 2), "stopped_after_steps": done, **pace}


# What the stages stand on.

SMALL: Figures = {
    "policy.lora": "null",
    "prompts.computed_once": "false",
    "prompts.example_turns": 0,
    "grpo.max_steps": 4,
    "grpo.save_steps": 100,
    "grpo.save_total_limit": "null",
    "grpo.max_completion_length": 8,
    "launcher.threads": 1,
}


def own_policy(scratch: Path) -> Figures:
    return {"policy.model": str(scratch / "policy"), "grpo.use_cpu": str(device() == "cpu").lower()}


def alone() -> dict[str, str]:
    """torchrun's environment of one process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@contextlib.contextmanager
def services() -> Iterator[tuple[str, Path]]:
    """The local services in a home of their own, with the questions that are trained on: their address, a folder."""
    import bioverify

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BIOVERIFY_HOME"] = f"{scratch}/home"
        with bioverify.local() as client:
            subprocess.run(
                [sys.executable, "-m", "bioverify.cli", "data", "build", "prompts"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            yield client.target, Path(scratch)


def write_policy(folder: Path) -> None:
    """A policy of a few thousand weights with a tokenizer of bytes, for the stages about the trainer itself."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(letters))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token=_END, pad_token=_END
    )
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    torch.manual_seed(0)
    sizes = shape("tiny") | {"vocab_size": len(fast)}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, eos_token_id=fast.eos_token_id, pad_token_id=fast.eos_token_id))
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


STAGES: dict[str, tuple[Callable[[str], Figures], int]] = {
    "machine": (machine, 30),
    "same_loss": (same_loss, 60),
    "unscored": (unscored, 90),
    "master_weights": (master_weights, 45),
    "training_step": (training_step, 120),
    "adapter_drift": (adapter_drift, 45),
    "writing": (writing, 60),
    "rewards": (rewards, 90),
    "checkpoint": (checkpoint, 60),
    "stopped": (stopped, 90),
}
"""Each with the seconds that it may take; ten minutes together, if they need half."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; if omitted, all")
    parser.add_argument("--shape", choices=("3b", "tiny"), default="3b")
    parser.add_argument("--limits", type=float, default=1.0, help="factor for the seconds that a stage may take")
    parser.add_argument("--here", action="store_true", help="run the one stage in this process")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.stages) - STAGES.keys()):
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if arguments.here:
        [stage] = arguments.stages
        print("FIGURES" + json.dumps(STAGES[stage][0](arguments.shape)))
        return
    failed = False
    for stage in arguments.stages or STAGES:
        line = told(stage, arguments.shape, STAGES[stage][1] * arguments.limits)
        failed |= "error" in line
        print(json.dumps(line), flush=True)
    sys.exit(failed)


def told(stage: str, name: str, limit_s: float) -> Figures:
    """The line of one stage: its figures, or what went wrong."""
    command = [sys.executable, "-m", "benchmarks.h100", "--here", "--shape", name, stage]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        # With all that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return {"stage": stage, "error": f"not done after {limit_s:g} s", "tail": output[-600:]}
    seconds = {"stage": stage, "seconds": round(time.perf_counter() - began, 1)}
    figures = [line.removeprefix("FIGURES") for line in output.splitlines() if line.startswith("FIGURES")]
    if process.returncode or not figures:
        return seconds | {"error": f"status {process.returncode}", "tail": output[-1500:]}
    found: Figures = json.loads(figures[-1])
    return seconds | found


if __name__ == "__main__":
    main()
