"""The services as a stranger meets them: the real grpcurl, without our code, against each running service."""

from __future__ import annotations

import json

import pytest

from bioverify import recipes
from bioverify.cli.services import VERIFIERS
from tests.fixtures.stack import LocalStack, grpcurl

TASK = {"differentialExpression": {"perturbation": "AARS1", "measuredGene": "ASNS", "cellLine": "k562"}}
ITEM = {"id": "1", "task": TASK, "completion": "<think>AARS1 and ASNS</think><answer>yes</answer>"}


def test_each_verifier_is_listed_described_healthy_and_scores(stack: LocalStack) -> None:
    for name in VERIFIERS:
        target = stack.processes()[name].address

        services = grpcurl("-plaintext", target, "list").split()
        assert {"bioverify.v1.VerifierService", "grpc.health.v1.Health"} <= set(services)

        described = json.loads(grpcurl("-plaintext", target, "bioverify.v1.VerifierService/Describe"))
        assert described["name"] == name
        assert described["fingerprint"]

        for service in ("", "bioverify.v1.VerifierService"):
            health = grpcurl(
                "-plaintext", "-d", json.dumps({"service": service}), target, "grpc.health.v1.Health/Check"
            )
            assert json.loads(health) == {"status": "SERVING"}

        request = json.dumps({"items": [ITEM]})
        reply = json.loads(grpcurl("-plaintext", "-d", request, target, "bioverify.v1.VerifierService/ScoreBatch"))
        [outcome] = reply["outcomes"]
        assert outcome["item_id"] == "1"
        assert ("scored" in outcome) != ("not_applicable" in outcome)


def test_the_aggregator_is_listed_healthy_and_rewards(stack: LocalStack) -> None:
    assert "bioverify.v1.RewardService" in grpcurl("-plaintext", stack.target, "list").split()
    ready = json.dumps({"service": "bioverify.v1.RewardService"})
    assert "SERVING" in grpcurl("-plaintext", "-d", ready, stack.target, "grpc.health.v1.Health/Check")
    assert "message Recipe" in grpcurl("-plaintext", stack.target, "describe", "bioverify.v1.Recipe")

    request = json.dumps({"recipeName": "all", "items": [ITEM]})
    reply = json.loads(grpcurl("-plaintext", "-d", request, stack.target, "bioverify.v1.RewardService/ScoreBatch"))

    [reward] = reply["rewards"]
    total = sum(part.get("contribution", 0.0) for part in reward["parts"])
    assert reward["reward"] == pytest.approx(total)
    assert {part["term"]["verifier"] for part in reward["parts"]} == {
        term.verifier for term in recipes.load("all").terms
    }
