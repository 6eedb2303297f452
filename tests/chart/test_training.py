"""The manifests for training: of the form of the published CRDs, and with commands that the programs take.

The models of Kubeflow Trainer and JobSet are those of their own package (kubeflow-trainer-api), which drops what it
does not know: what goes in has to come out again. The pods inside are checked by Kubernetes' schema.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api import models
from torch.distributed.run import get_args_parser
from typer.main import get_command

from bioverify import recipes
from bioverify_trainer.cli import app
from bioverify_trainer.preset import load_preset
from tests.chart.helm import ROOT, Manifest, containers, named, of_kind, rendered
from tests.chart.schemas import NEWEST, OLDEST, problems

pytestmark = pytest.mark.chart

FOLDER = ROOT / "k8s" / "training"
MODELS: dict[str, Any] = {
    "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime,
    "TrainJob": models.TrainerV1alpha1TrainJob,
    "JobSet": models.JobsetV1alpha2JobSet,
}


def manifests(pattern: str = "*.yaml") -> list[Manifest]:
    return [one for path in sorted(FOLDER.glob(pattern)) for one in yaml.safe_load_all(path.read_text())]


def jobs(manifest: Manifest) -> list[Manifest]:
    spec = manifest["spec"]
    found: list[Manifest] = (spec["template"]["spec"] if manifest["kind"] == "TrainingRuntime" else spec)[
        "replicatedJobs"
    ]
    return found


def pods() -> Iterator[tuple[str, Manifest]]:
    for manifest in of_kind(manifests(), "TrainingRuntime", "JobSet"):
        for job in jobs(manifest):
            yield job["name"], job["template"]["spec"]["template"]
    for manifest in of_kind(manifests(), "Job"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]


def runs() -> Iterator[tuple[list[str], int, Manifest]]:
    """Of every training: the words after `bioverify_trainer`, its processes, and its pod."""
    (runtime,) = of_kind(manifests(), "TrainingRuntime")
    (job,) = jobs(runtime)
    for manifest in of_kind(manifests(), "TrainJob"):
        trainer = manifest["spec"]["trainer"]
        yield trainer["args"], trainer["numNodes"] * trainer["numProcPerNode"], job["template"]["spec"]["template"]
    for manifest in of_kind(manifests(), "JobSet"):
        (job,) = [job for job in jobs(manifest) if job["name"] == "trainer"]
        pod = job["template"]["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        launch = torchrun(container["command"])
        yield container["args"], int(launch.nnodes) * int(launch.nproc_per_node), pod


def torchrun(command: list[str]) -> argparse.Namespace:
    assert command[0] == "torchrun"
    return get_args_parser().parse_args(command[1:])


def lost(written: Any, read: Any, where: str = "") -> list[str]:
    """The places of what was written that are not in what was read; defaults may have come in."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [
            place
            for key, value in written.items()
            for place in lost(value, read.get(key), f"{where}.{key}".removeprefix("."))
        ]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [
            place for n, pair in enumerate(zip(written, read, strict=True)) for place in lost(*pair, f"{where}[{n}]")
        ]
    return [] if written == read else [where]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_manifests_have_the_published_form(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        if model := MODELS.get(manifest["kind"]):
            read = model.from_dict(json.loads(json.dumps(manifest)))
            assert lost(manifest, read.to_dict()) == []
        else:
            assert problems([manifest], NEWEST) == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_jobs_inside_hold_against_kubernetes_own_schema(version: str) -> None:
    for manifest in of_kind(manifests(), "TrainingRuntime", "JobSet"):
        for job in jobs(manifest):
            inside = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
            inside["metadata"] = {"name": job["name"], **job["template"].get("metadata", {})}
            assert problems([inside], version) == []


def test_a_field_that_no_crd_has_would_be_seen() -> None:
    (job, *_) = of_kind(manifests(), "TrainJob")
    changed = job | {"spec": job["spec"] | {"trainer": job["spec"]["trainer"] | {"nodes": 2}}}
    assert lost(changed, MODELS["TrainJob"].from_dict(changed).to_dict()) == ["spec.trainer.nodes"]


def test_every_training_is_one_that_the_trainer_takes() -> None:
    found = list(runs())
    assert len(found) == 3
    for arguments, processes, _ in found:
        command: Any = get_command(app)
        with command.get_command(None, arguments[0]).make_context(arguments[0], arguments[1:]) as context:
            chosen = context.params
        recipes.load(chosen["recipe"])
        preset = load_preset(chosen["preset"], chosen["changes"])
        # What divides the completions among groups, and how long the others wait, depends on it.
        assert preset.launcher.processes == processes
        assert preset.launcher.process_group_timeout_s > preset.rewards.deadline_s
        # A restarted pod is given the same command.
        assert chosen["restartable"]
        assert str(chosen["output"]).startswith("/runs/")


def test_torchrun_and_the_vllm_server_take_their_words() -> None:
    (runtime,) = of_kind(manifests(), "TrainingRuntime")
    (container,) = jobs(runtime)[0]["template"]["spec"]["template"]["spec"]["containers"]
    assert torchrun(container["command"]).training_script == "bioverify_trainer"
    # By these names Kubeflow Trainer finds where its variables go.
    assert (jobs(runtime)[0]["name"], container["name"]) == ("node", "node")
    (jobset,) = of_kind(manifests(), "JobSet")
    (server,) = [job for job in jobs(jobset) if job["name"] == "vllm"]
    (container,) = server["template"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["vllm", "serve"]
    model, *options = container["args"]
    given = dict(option.removeprefix("--").split("=", 1) for option in options)
    assert int(given["tensor-parallel-size"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert container["ports"] == [{"name": "http", "containerPort": int(given["port"])}]
    # What TRL's client asks for before it trains.
    assert json.loads(given["weight-transfer-config"]) == {"backend": "nccl"}
    assert (given["logprobs-mode"], given["max-logprobs"]) == ("processed_logprobs", "-1")
    assert {"name": "VLLM_SERVER_DEV_MODE", "value": "1"} in container["env"]
    assert given["generation-config"] == "vllm"
    (trainer,) = [job for job in jobs(jobset) if job["name"] == "trainer"]
    arguments = trainer["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    name = jobset["metadata"]["name"]
    # JobSet's name of the one pod: <jobset>-<job>-<index of the job>-<index of the pod>.<subdomain>
    assert f"--set=grpo.vllm_server_base_url=http://{name}-vllm-0-0.{name}:{given['port']}" in arguments
    preset = load_preset("h100x8", [each.removeprefix("--set=") for each in arguments if each.startswith("--set=")])
    assert preset.policy.model == model


def test_only_its_own_pods_reach_the_vllm_servers_development_endpoints() -> None:
    (policy,) = of_kind(manifests(), "NetworkPolicy")
    (jobset,) = of_kind(manifests(), "JobSet")
    own = {"podSelector": {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"]}}}
    spec = policy["spec"]
    assert {"podSelector": spec["podSelector"]} == own
    assert spec["policyTypes"] == ["Ingress"]
    # No port is named: NCCL chooses its own.
    assert spec["ingress"] == [{"from": [own]}]


def test_a_pod_that_is_told_to_stop_has_time_for_a_checkpoint() -> None:
    """Without these, torchrun kills its processes after 30 seconds and the kubelet after 60."""
    (runtime,) = of_kind(manifests(), "TrainingRuntime")
    (jobset,) = of_kind(manifests(), "JobSet")
    trainers = [job for job in (*jobs(runtime), *jobs(jobset)) if job["name"] in ("node", "trainer")]
    assert len(trainers) == 2
    for job in trainers:
        pod = job["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        limit_s = torchrun(container["command"]).shutdown_timeout
        # 43 GB at 50 MB/s.
        assert 43_000 / 50 < limit_s < pod["terminationGracePeriodSeconds"]


def test_the_training_ends_the_job_although_the_server_never_ends() -> None:
    (jobset,) = of_kind(manifests(), "JobSet")
    assert jobset["spec"]["successPolicy"]["targetReplicatedJobs"] == ["trainer"]
    names = [job["name"] for job in jobs(jobset)]
    for job in jobs(jobset):
        assert all(names.index(needed["name"]) < names.index(job["name"]) for needed in job.get("dependsOn", ()))


def test_every_process_begins_again_when_one_is_lost() -> None:
    for manifest in of_kind(manifests(), "TrainingRuntime", "JobSet"):
        spec = manifest["spec"]["template"]["spec"] if manifest["kind"] == "TrainingRuntime" else manifest["spec"]
        assert spec["failurePolicy"]["maxRestarts"] > 0
        # A pod that was begun again alone would wait for a group that has gone.
        assert {job["template"]["spec"]["backoffLimit"] for job in jobs(manifest)} == {0}
        assert {job["template"]["spec"]["template"]["spec"]["restartPolicy"] for job in jobs(manifest)} == {"Never"}


def test_trainers_may_ask_the_charts_aggregator() -> None:
    chart = rendered("default")
    service = named(chart, "Service", "aggregator")
    policy = named(chart, "NetworkPolicy", "aggregator")
    peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
    for arguments, _, pod in runs():
        assert f"--target={service['metadata']['name']}:{service['spec']['ports'][0]['port']}" in arguments
        assert any(
            peer.get("podSelector", {}).get("matchLabels", {"": None}).items() <= pod["metadata"]["labels"].items()
            for peer in peers
        )


def test_what_a_job_names_is_there() -> None:
    queues = {one["metadata"]["name"] for one in of_kind(manifests(), "LocalQueue")}
    for manifest in of_kind(manifests(), "TrainJob", "JobSet"):
        assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] in queues
    (cluster,) = of_kind(manifests(), "ClusterQueue")
    (flavor,) = of_kind(manifests(), "ResourceFlavor")
    assert [each["name"] for each in cluster["spec"]["resourceGroups"][0]["flavors"]] == [flavor["metadata"]["name"]]
    claims = {one["metadata"]["name"] for one in of_kind(manifests(), "PersistentVolumeClaim")}
    for _, pod in pods():
        used = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if "emptyDir" not in volume]
        assert {claim["claimName"] for claim in used} <= claims
    (runtime,) = of_kind(manifests(), "TrainingRuntime")
    for job in of_kind(manifests(), "TrainJob"):
        assert job["spec"]["runtimeRef"] == {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "TrainingRuntime",
            "name": runtime["metadata"]["name"],
        }


def test_names_are_short_enough_for_the_pods_that_are_named_after_them() -> None:
    for manifest in of_kind(manifests(), "TrainingRuntime", "JobSet"):
        # Kubeflow Trainer 2.4 takes no longer one.
        assert max(len(job["name"]) for job in jobs(manifest)) <= 20
    for manifest in of_kind(manifests(), "TrainJob", "JobSet"):
        assert len(f"{manifest['metadata']['name']}-trainer-0-0") <= 63


def test_no_pod_may_do_more_than_it_needs() -> None:
    for name, pod in pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, name
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
