"""Wrong values are refused before anything reaches a cluster, with a message that says which and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import ROOT, template

pytestmark = pytest.mark.chart


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("verifierz.x.port=1", "verifierz"),
        ("verifiers.go_rouge.replica=2", "replica"),
        ("verifiers.go_rouge.port=80", "port"),
        ("verifiers.GO.port=9000", "GO"),
        ("verifiers.x_.port=9000", "x_"),
        # Its metrics would be on a port that there is not.
        ("verifiers.go_rouge.port=65000", "port"),
        ("gateway.ingress.host=Bad_Host", "host"),
        ("aggregator.replicas=two", "replicas"),
        ("aggregator.autoscaling.kind=queue", "kind"),
        ("images.pullPolicy=Sometimes", "pullPolicy"),
        ("images.tag=true", "tag"),
        ("verifiers.esm_mlp.resources.limits.memory=lots", "memory"),
        ("verifiers.esm_mlp.gpu.count=-1", "count"),
        ("artifacts.source=oci", "source"),
        ("artifacts.pull.digests.genes=sha256:abc", "genes"),
        ("artifacts.pull.url=models/bioverify", "url"),
        ("gateway.settings.max_item=5", "max_item"),
        ("gateway.settings.max_items=0", "max_items"),
        ("valkey.maxMemory=plenty", "maxMemory"),
        ("networkPolicies.enabled=maybe", "enabled"),
        ("monitoring.interval=often", "interval"),
        ("artifacts.build.storageClass=Not_A_Class", "storageClass"),
        ("gateway.service.loadBalancerSourceRanges={everyone}", "loadBalancerSourceRanges"),
        ("listenAddress=localhost", "listenAddress"),
        ("networkPolicies.dnsPorts={0}", "dnsPorts"),
        # A password stands in a secret, never in values.
        ("externalRedis.url=redis://:secret@redis:6379", "url"),
        ("aggregator.resources.limits.ephemeral-storage=lots", "ephemeral-storage"),
    ],
)
def test_the_schema_refuses_and_names_the_key(change: str, said: str) -> None:
    done = template("--set", change)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert said in done.stderr.partition("bioverify:")[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("artifacts.source=pull", "artifacts.pull.url: needed with artifacts.source pull"),
        ("artifacts.source=claim", "artifacts.existingClaim: needed"),
        (
            "verifiers.esm_mlp.enabled=false",
            "aggregator.consensus is made of esm_mlp and analogy, and verifiers.esm_mlp",
        ),
        ("fullnameOverride=1st", "1st: a service's name begins with a letter and has no dot"),
        ("fullnameOverride=a.b", "a.b: a service's name begins with a letter and has no dot"),
        ("verifiers.gateway.port=9000", "verifiers.gateway: the chart has a part of this name already"),
        (
            f"fullnameOverride={'r' * 32},verifiers.{'v' * 22}.port=9000",
            f"{'v' * 22}-headless is longer than the 63 characters of a service's name",
        ),
        ("verifiers.analogy=null", "verifiers.analogy is not enabled"),
        ("tls.enabled=true", "tls: needs existingSecret, or certManager.issuer"),
        ("gateway.tls.enabled=true", "gateway.tls: needs existingSecret, or certManager.issuer"),
        ("gateway.replicas=2", "gateway.jobs: one pod keeps the jobs"),
        ("verifiers.go_rouge_headless.port=9000", "a name that ends with _headless is taken"),
        (
            "gateway.keys.openToAnyone=true,gateway.service.type=LoadBalancer",
            "gateway.keys.openToAnyone: with gateway.service.type LoadBalancer whoever reaches",
        ),
        (
            "gateway.keys.openToAnyone=true,gateway.service.type=NodePort",
            "gateway.keys.openToAnyone: with gateway.service.type NodePort whoever reaches",
        ),
        (
            "gateway.keys.openToAnyone=true,gateway.service.type=LoadBalancer,"
            "gateway.service.loadBalancerSourceRanges={0.0.0.0/0}",
            "whoever reaches the cluster's addresses could score without a key",
        ),
        ("gateway.service.loadBalancerSourceRanges={10.0.0.0/8}", "are for type LoadBalancer"),
        ("aggregator.ingress.enabled=true", "aggregator.ingress.host: needed"),
        (
            "externalRedis.url=redis://a:6379,externalRedis.existingSecret=b",
            "externalRedis: either url, or existingSecret",
        ),
        ("externalRedis.passwordSecret=a", "needs externalRedis.url"),
        ("caBundle.configMap=a,caBundle.secret=b", "caBundle: either configMap or secret"),
        ("monitoring.alerts=true,fullnameOverride=rewards", "the rules know services by bioverify in their names"),
        ("gateway.keys.openToAnyone=true,gateway.keys.existingSecret=x", "either existingSecret or openToAnyone"),
        ("gateway.ingress.enabled=true", "gateway.ingress.host: needed"),
        (
            "verifiers.format.autoscaling.minReplicas=9",
            "verifiers.format.autoscaling: maxReplicas is below minReplicas",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_what_would(changes: str, said: str) -> None:
    done = template("--set", changes)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_verifiers_own_entry_wins_over_the_defaults_even_where_it_is_empty(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "verifierDefaults: {replicas: 3, deadlineSeconds: 5, nodeSelector: {a: b}, topologySpread: [zone]}\n"
        "verifiers: {go_rouge: {replicas: 1, deadlineSeconds: 0, topologySpread: []}}\n"
    )
    found = {
        one["metadata"]["name"]: one["spec"]
        for one in yaml.safe_load_all(template("--values", str(values)).stdout)
        if one and one["kind"] == "Deployment"
    }
    own, other = found["rewards-bioverify-go-rouge"], found["rewards-bioverify-format"]
    assert (own["replicas"], other["replicas"]) == (1, 3)
    assert own["template"]["spec"]["nodeSelector"] == {"a": "b"}
    assert "topologySpreadConstraints" not in own["template"]["spec"]
    assert "topologySpreadConstraints" in other["template"]["spec"]
    arguments = found["rewards-bioverify-aggregator"]["template"]["spec"]["containers"][0]["args"]
    limited = {each for each in arguments if each.startswith("--verifier-deadline=")}
    assert "--verifier-deadline=format=5" in limited
    assert not [each for each in limited if "go_rouge" in each]


def test_what_is_generated_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "k8s/values.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
