"""A stand-in for vLLM that writes by transformers, for TRL's two ways to use it.

Beside the trainer (`install`): the module ``vllm``, as far as TRL imports it. As a server
(``python -m tests.gpu_paths.vllm_stand_in MODEL PORT``): the routes that TRL's client asks, in a process of its own,
which is sent the weights over a socket in place of NCCL. What vLLM promises is held: a request's seed decides its
completion, the n completions of one request have the seeds from there on, and weights that were put to sleep are gone.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import torch
from safetensors.torch import load, save

VERSION = "0.30.0"


@dataclass
class SamplingParams:
    n: int
    repetition_penalty: float
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    logprobs: int
    seed: int | None = None


class Writer:
    """A model that writes one token after the other."""

    def __init__(self, path: str) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._weights = dict(self._model.named_parameters())
        self._lock = Lock()

    @torch.no_grad()
    def load_weights(self, named: Sequence[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in named:
            assert self._weights[name].shape == tensor.shape, name
            self._weights[name].copy_(tensor)

    @torch.no_grad()
    def forget_weights(self) -> None:
        for weight in self._weights.values():
            weight.fill_(math.nan)

    @torch.no_grad()
    def write(self, prompt: list[int], wanted: SamplingParams) -> tuple[list[int], list[float]]:
        """The tokens of one completion, with its end token, and the logarithm of each one's probability."""
        plain = (wanted.repetition_penalty, wanted.top_p, wanted.top_k, wanted.min_p, wanted.logprobs)
        assert plain == (1.0, 1.0, 0, 0.0, 0), f"only plain sampling is imitated, not {plain}"
        generator = None if wanted.seed is None else torch.Generator().manual_seed(wanted.seed)
        tokens: list[int] = []
        found: list[float] = []
        with self._lock:
            while len(tokens) < wanted.max_tokens and tokens[-1:] != [self._model.config.eos_token_id]:
                logits = self._model(torch.tensor([prompt + tokens])).logits[0, -1]
                if wanted.temperature:
                    log_p = (logits / wanted.temperature).log_softmax(-1)
                    token = int(torch.multinomial(log_p.exp(), 1, generator=generator))
                else:
                    log_p = logits.log_softmax(-1)
                    token = int(log_p.argmax())
                tokens.append(token)
                found.append(float(log_p[token]))
        return tokens, found


class LLM:
    """vLLM's engine beside the trainer. What it was asked to do is in ``log``."""

    log: ClassVar[list[str]] = []

    def __init__(self, model: str, *, seed: int, enable_sleep_mode: bool, logprobs_mode: str, **settings: Any) -> None:
        assert logprobs_mode == "processed_logprobs"
        torch.manual_seed(seed)
        self._writer = Writer(model)
        self._may_sleep = enable_sleep_mode
        self._awake = {"weights", "kv_cache"}
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load_weights))
        worker = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(model_executor=worker)

    def _load_weights(self, named: Sequence[tuple[str, torch.Tensor]]) -> None:
        assert "weights" in self._awake
        self._writer.load_weights(named)

    def sleep(self, level: int) -> None:
        assert self._may_sleep
        assert level == 2
        self._awake.clear()
        self._writer.forget_weights()
        self.log.append("sleep")

    def wake_up(self, tags: list[str]) -> None:
        self._awake.update(tags)
        self.log.append(f"wake {' '.join(tags)}")

    def reset_prefix_cache(self) -> None:
        self.log.append("weights")

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], use_tqdm: bool
    ) -> list[Any]:
        assert self._awake == {"weights", "kv_cache"}
        self.log.append("generate")
        outputs = []
        for prompt, wanted in zip(prompts, sampling_params, strict=True):
            ids = prompt["prompt_token_ids"]
            tokens, found = self._writer.write(ids, wanted)
            logprobs = [
                {token: SimpleNamespace(logprob=log_p, rank=1)} for token, log_p in zip(tokens, found, strict=True)
            ]
            completion = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
            outputs.append(SimpleNamespace(prompt_token_ids=ids, outputs=[completion]))
        return outputs


def open_trainer_endpoint(init_info: dict[str, Any]) -> SimpleNamespace:
    """The trainer's end of the way for the weights: the server comes to it."""
    with socket.create_server((init_info["master_address"], init_info["master_port"])) as listening:
        listening.settimeout(60)
        connection, _ = listening.accept()
    # By these names TRL closes it.
    return SimpleNamespace(group=SimpleNamespace(store=None, socket=connection))


def send_weights(
    *, iterator: Iterator[Any], group: Any, src: int, post_iter_func: Callable[[Any], torch.Tensor]
) -> None:
    assert src == 0
    # Under ZeRO-3 a parameter is whole only until the next one is asked for.
    tensors = {str(place): post_iter_func(item).detach().clone() for place, item in enumerate(iterator)}
    packed = save(tensors)
    group.group.socket.sendall(struct.pack("<Q", len(packed)) + packed)


def install() -> None:
    """What `import vllm` finds from now on. To be called before TRL is imported, which looks for it then."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": VERSION, "LLM": LLM, "SamplingParams": SamplingParams, "RequestOutput": object},
        "vllm.sampling_params": {"StructuredOutputsParams": object},
        "vllm.utils": {},
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1"},
        "vllm.distributed": {},
        "vllm.distributed.weight_transfer": {},
        "vllm.distributed.weight_transfer.nccl_common": {"trainer_init": open_trainer_endpoint},
        "vllm.distributed.weight_transfer.packed_tensor": {"packed_nccl_broadcast_producer": send_weights},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        module.__dict__.update(content)
        sys.modules[name] = module


class _Server(BaseHTTPRequestHandler):
    writer: Writer
    model: str
    weights_from: socket.socket

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(
            {
                "/health": dict,
                "/v1/models": lambda: {"data": [{"id": self.model}]},
                "/get_world_size": lambda: {"world_size": 1},
                "/server_info?config_format=json": lambda: {
                    "vllm_config": {
                        "model_config": {"logprobs_mode": "processed_logprobs"},
                        "weight_transfer_config": {"backend": "nccl"},
                    }
                },
            }[self.path]()
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        told = json.dumps({key: body[key] for key in ("seed", "n") if key in body})
        # At once: print writes the end of the line apart, and another request's thread may come between.
        print(f"{self.path} {told}\n", end="", flush=True)
        self._answer(
            {
                "/init_weight_transfer_engine": self._meet,
                "/start_weight_update": lambda _: {},
                "/update_weights": self._take_weights,
                "/finish_weight_update": lambda _: {},
                "/reset_prefix_cache": lambda _: {"success": True},
                "/v1/completions": self._complete,
            }[self.path](body)
        )

    def _answer(self, reply: dict[str, Any]) -> None:
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _meet(self, body: dict[str, Any]) -> dict[str, Any]:
        info = body["init_info"]
        assert info["packed"]
        assert info["world_size"] == 2
        deadline = time.monotonic() + 60
        while True:
            try:
                _Server.weights_from = socket.create_connection((info["master_address"], info["master_port"]))
            except ConnectionRefusedError:
                # The trainer asks first and listens then, as it does with NCCL.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return {}

    def _take_weights(self, body: dict[str, Any]) -> dict[str, Any]:
        info = body["update_info"]
        with _Server.weights_from.makefile("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            tensors = load(stream.read(size))
        sent = [tensors[str(place)] for place in range(len(info["names"]))]
        assert [list(tensor.shape) for tensor in sent] == info["shapes"]
        assert [str(tensor.dtype) for tensor in sent] == [f"torch.{name}" for name in info["dtype_names"]]
        self.writer.load_weights(list(zip(info["names"], sent, strict=True)))
        return {}

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = SamplingParams.__dataclass_fields__
        wanted = SamplingParams(**{name: body[name] for name in fields if name in body})
        choices = []
        for prompt in body["prompt"]:
            for index in range(wanted.n):
                seed = None if wanted.seed is None else wanted.seed + index
                tokens, found = self.writer.write(prompt, replace(wanted, n=1, seed=seed))
                logprobs = {
                    "tokens": [f"token_id:{token}" for token in tokens],
                    "token_logprobs": found,
                    "top_logprobs": [None] * len(tokens),
                }
                choices.append({"prompt_token_ids": prompt, "token_ids": tokens, "logprobs": logprobs})
        return {"choices": choices}


def serve(model: str, port: int) -> None:
    torch.set_num_threads(1)
    _Server.model, _Server.writer = model, Writer(model)
    ThreadingHTTPServer(("127.0.0.1", port), _Server).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
