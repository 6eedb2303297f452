"""Every exception of ours, in one tree: `except BioverifyError` catches what bioverify refuses, and no fault of Python.

BioverifyError
├── SettingsError          settings                      a file of settings: which, at which key, why
├── TlsError               transport.tls                 certificates that cannot be used
├── RedisAddressError     transport.redis_address       an address of Redis that cannot be read
├── Refused                runtime.errors                a gRPC call as a whole is refused by a service
├── ClientError            client.errors                 a call that reached no aggregator, or that it refused
│   core, the aggregator
├── ConversationError      core.conversation             messages that cannot be read as a conversation
├── AmbiguousSourceError   core.recipes                  sources of a recipe disagree about an item
├── UpstreamError          aggregator.faults             a verifier did not answer as agreed
├── QueueFullError         aggregator.policy.limits      more items wait already than may
├── TurnedAwayError        aggregator.policy.limits      the breaker opened while the call waited
│   files of completions, artifacts, adapters
├── LineError              rollouts.lines                a line that cannot be scored
├── DialectError           rollouts.dialects             a row of another tool that cannot be read as an item
├── LedgerError            rollouts.ledger               a file that is no ledger of results
├── ArtifactError          artifacts.errors              an artifact or a source: missing, damaged, another one
│   └── ScreenError        artifacts.own_screens.settings         a file of your own that is no screen
├── RunError               verifiers.transcriptformer_pmi.log_ratios    a run of the matrix builder
├── NoRewardError          adapters.alone                there is no reward, which is not a zero
│   the gateway
├── ProblemError           gateway.problems              ends an HTTP request with a problem
├── RecipeGoneError        gateway.jobs                  the aggregator lost a recipe while a job waited
├── TooManyJobsError       gateway.jobs                  a key has as many jobs under way as it may have
├── _TurnOverError         gateway.jobs                  another key's job is to have the place
├── _StoppedError          gateway.jobs                  a job was cancelled, or the gateway ends
│   the local stack, verifiers of one's own
├── StackError             stack.errors                  the local stack cannot be started or reached
├── ScaffoldError          scaffold                      a name or folder that cannot become a verifier
├── Unreachable            conformance.suite             nobody answers at the target
├── Broken                 conformance.peer              a rule of the contract is broken: a finding
├── NotShown               conformance.peer              a rule that can be neither shown nor refuted here
│   the trainer
├── DatasetError           bioverify_trainer.dataset     no prompts of the kind that the recipe asks for
├── PolicyError            bioverify_trainer.model.policy         a model that cannot be opened
├── CheckpointError        bioverify_trainer.model.checkpoints    a checkpoint that cannot be had
├── RunError               bioverify_trainer.runs.folder          a run folder that cannot be used
├── NoEstimateError        bioverify_trainer.estimate             nothing can be said of memory and time beforehand
├── RunStopped             bioverify_trainer.stopping             a run was told to stop while it waited
├── LaunchError            bioverify_trainer.service.launching    a run that cannot be started or stopped now
└── EvaluationError        bioverify_trainer.evaluate.questions   an evaluation that cannot be done
"""

from __future__ import annotations

from collections.abc import Mapping


class BioverifyError(Exception):
    """The base of them all. The message is a sentence for a person: what is wrong, where, and what to do."""


MODULES_OF: Mapping[str, tuple[str, ...]] = {
    "gateway": ("anyio", "fastapi", "fastapi_offline", "httptools", "limits", "uvicorn", "uvloop"),
    "esm": ("safetensors",),
    "analogy": ("lightgbm", "scipy"),
    "claims": ("ahocorasick_rs",),
    "build": ("anndata", "h5py", "lightgbm", "pronto", "pyarrow", "safetensors", "scipy", "torch"),
    "tables": ("pyarrow",),
    "remote": ("obstore",),
    "tracing": ("opentelemetry.exporter", "opentelemetry.sdk"),
    "train": ("accelerate", "datasets", "jinja2", "matplotlib", "peft", "tensorboard", "torch", "transformers", "trl"),
}
"""What the extras of pyproject.toml bring, by the names under which it is imported."""


def missing_extra(error: ModuleNotFoundError, extra: str | None = None) -> str:
    """The sentence for a library that is not there; empty if no extra brings it. ``extra``: the one that is meant."""
    name = (error.name or "").partition(".")[0]
    extra = extra or next((one for one, modules in MODULES_OF.items() if name in modules), None)
    if extra is None or name not in {module.partition(".")[0] for module in MODULES_OF[extra]}:
        return ""
    return f"the library {name} is not installed here. {how_to_install(extra)}"


def how_to_install(extra: str) -> str:
    """What to run if a library of an optional part is missing."""
    return f"Run in a clone of bioverify: pip install -e '.[{extra}]'"
