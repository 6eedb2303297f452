"""Training runs one after the other, over the stand-in for vLLM: ``… -m tests.gpu_paths.on_cpu JSON``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.gpu_paths import vllm_stand_in


def main(runs: list[dict[str, Any]]) -> None:
    vllm_stand_in.install()
    from trl.generation.vllm_client import VLLMClient

    meet = VLLMClient.init_communicator
    # The client refuses to send weights from anything but a CUDA device, because NCCL would.
    VLLMClient.init_communicator = lambda client, device: meet(client, "cuda")

    from bioverify_trainer.train import leave_process_group
    from tests.trainer.two_ranks import trained

    for run in runs:
        vllm_stand_in.LLM.log.clear()
        trainer = trained(run)
        if trainer.is_world_process_zero():
            (Path(run["output"]) / "engine.json").write_text(json.dumps(vllm_stand_in.LLM.log))
    leave_process_group(trainer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
