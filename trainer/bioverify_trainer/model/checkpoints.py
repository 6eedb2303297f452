"""rbio's published checkpoints, by name: fetched once, without an account, and kept.

The bucket's listing gives the size that each file must have. A download that was cut off is resumed, file by file; a
folder takes its name when all of it is there. Weights are taken as safetensors only, because nothing here is ever
unpickled.

How the bucket spells its folders beyond "rbio1-" is not documented, so upper and lower case are not told apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from bioverify.artifacts.downloads import download
from bioverify.artifacts.errors import ArtifactError
from bioverify.errors import BioverifyError

BUCKET = "https://czi-rbio.s3.amazonaws.com"
LICENCE = "Qwen Research License (non-commercial)"
CHECKPOINTS = {
    "rbio1-exp": "the experimental screen",
    "rbio1-mlp": "the embedding classifier",
    "rbio1-tf": "TranscriptFormer's PMI",
    "rbio1-go": "Gene Ontology, all three branches",
    "rbio1-go-c": "Gene Ontology, cellular component",
    "rbio1-go-f": "Gene Ontology, molecular function",
    "rbio1-go+exp": "Gene Ontology, experimental screen",
    "rbio1-tf+exp": "TranscriptFormer, experimental screen",
    "rbio1-tf+go+exp": "TranscriptFormer, Gene Ontology, experimental screen",
    "rbio1-tf+go+mlp": "TranscriptFormer, Gene Ontology, embedding classifier",
    "rbio1-tf+go+mlp+exp": "all four",
}
"""Name: what it was rewarded by. All are Qwen2.5-3B-Instruct, trained further."""

_WANTED = (".safetensors", ".json", ".txt", ".jinja", ".model")
# Of a listing, which is asked for twice: a bucket that does not answer is told within ten seconds.
_TIMEOUT = timedelta(seconds=3)


class CheckpointError(BioverifyError):
    """A checkpoint that cannot be had; the message says what to do."""


def fetch(name: str, models: Path, *, bucket: str | None = None) -> Path:
    """The folder of the checkpoint below ``models``; fetched if it is not there yet. Raises CheckpointError."""
    folder = models / name
    if folder.is_dir():
        return folder
    address = bucket or os.environ.get("BIOVERIFY_RBIO_BUCKET", BUCKET)
    partial = folder.with_name(f"{name}.partial")
    try:
        store = S3Store(
            "rbio",
            endpoint=address,
            virtual_hosted_style_request=True,
            skip_signature=True,
            client_options={"allow_http": True, "timeout": _TIMEOUT},
            retry_config={"max_retries": 1, "retry_timeout": 2 * _TIMEOUT},
        )
        prefix = _prefix(name, address, obstore.list_with_delimiter(store)["common_prefixes"])
        size_bytes = {
            file_name: one["size"]
            for one in obstore.list_with_delimiter(store, prefix)["objects"]
            if (file_name := one["path"].rsplit("/", 1)[-1]).endswith(_WANTED)
        }
        if "config.json" not in size_bytes:
            raise CheckpointError(f"{name}: {address}/{prefix} holds no checkpoint of Hugging Face's form")
        for file_name, size in size_bytes.items():
            target = partial / file_name
            if not (target.is_file() and target.stat().st_size == size):
                url = f"{address}/{quote(f'{prefix}/{file_name}')}"
                download(f"{name}/{file_name}", url, target, size_bytes=size)
    except (httpx.HTTPError, BaseError, ArtifactError) as error:
        raise CheckpointError(
            f"{name} could not be fetched from {address} ({error}). What has arrived is kept; the same command resumes"
        ) from error
    _check_whole(name, partial)
    partial.rename(folder)
    return folder


def _prefix(name: str, address: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        if prefix.lower() == name:
            return prefix
    raise CheckpointError(f"{name}: {address} has no such folder, only: {', '.join(sorted(prefixes)) or 'none'}")


def _check_whole(name: str, folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    if missing := sorted(shard for shard in named if not (folder / shard).is_file()):
        raise CheckpointError(f"{name}: the bucket lacks {', '.join(missing)}, which its own index names")
