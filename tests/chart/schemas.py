"""Manifests against published schemas: Kubernetes' own by kubernetes-validate, operators' by `operators`."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import jsonschema
from kubernetes_validate import utils

from tests.chart import operators
from tests.chart.helm import Manifest

OLDEST, NEWEST = "1.30", "1.37"

# It reads 2 MB of definitions for each manifest otherwise.
utils.schema_contents = functools.cache(utils.schema_contents)


def problems(manifests: Iterable[Manifest], version: str) -> list[str]:
    """What does not hold: unknown fields, wrong types, missing ones, kinds that nobody knows."""
    found = []
    for manifest in manifests:
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            if (manifest["apiVersion"], manifest["kind"]) in operators.SPECS:
                jsonschema.validate(manifest, operators.schema_of(manifest["apiVersion"], manifest["kind"]))
            else:
                utils.validate(manifest, version, strict=True)
        except jsonschema.ValidationError as error:
            found.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message[:300]}")
        except utils.SchemaNotFoundError as error:
            found.append(f"{where}: {error.message}")
    return found
