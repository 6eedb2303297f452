"""rbio's published checkpoints, by name: fetched once over anonymous HTTPS, and kept.

The bucket is listed as S3 does it (ListObjectsV2, XML), which also gives the size that each file must have. A download
that was cut off goes on where it stopped, file by file; a folder takes its name when all of it is there. Weights are
taken as safetensors only, because nothing here is ever unpickled.

How the bucket spells its folders beyond "rbio1-" is not documented, so the name is looked for whatever its case.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from bioverify.artifacts.downloads import download
from bioverify.artifacts.errors import ArtifactError

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
_NAMESPACE = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}
_TIMEOUT_S = 30.0


class CheckpointError(Exception):
    """A checkpoint that cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _File:
    key: str
    size_bytes: int


def fetch(name: str, models: Path, *, bucket: str | None = None) -> Path:
    """The folder of the checkpoint below ``models``; fetched where it is not there yet. Raises CheckpointError."""
    folder = models / name
    if folder.is_dir():
        return folder
    address = bucket or os.environ.get("BIOVERIFY_RBIO_BUCKET", BUCKET)
    partial = folder.with_name(f"{name}.partial")
    try:
        prefix = _prefix(name, address)
        found = [one for one in _listed(address, prefix) if _is_wanted(one.key.removeprefix(prefix))]
        if not any(one.key == f"{prefix}config.json" for one in found):
            raise CheckpointError(f"{name}: {address}/{prefix} holds no checkpoint of Hugging Face's form")
        for one in found:
            target = partial / one.key.removeprefix(prefix)
            if not (target.is_file() and target.stat().st_size == one.size_bytes):
                url = f"{address}/{quote(one.key, safe='/')}"
                download(f"{name}/{target.name}", url, target, size_bytes=one.size_bytes)
    except (httpx.HTTPError, ArtifactError) as error:
        raise CheckpointError(
            f"{name} could not be fetched from {address} ({error}). What has arrived is kept; the same command goes on"
        ) from error
    _check_whole(name, partial)
    partial.rename(folder)
    return folder


def _prefix(name: str, address: str) -> str:
    prefixes = [
        prefix for page in _pages(address, delimiter="/") for prefix in _texts(page, "CommonPrefixes/s3:Prefix")
    ]
    for prefix in prefixes:
        if prefix.rstrip("/").lower() == name:
            return prefix
    raise CheckpointError(f"{name}: {address} has no such folder, only: {', '.join(sorted(prefixes)) or 'none'}")


def _listed(address: str, prefix: str) -> list[_File]:
    return [
        _File(key, int(size))
        for page in _pages(address, prefix=prefix)
        for key, size in zip(_texts(page, "Contents/s3:Key"), _texts(page, "Contents/s3:Size"), strict=True)
    ]


def _pages(address: str, **asked: str) -> Iterator[ET.Element]:
    parameters = {"list-type": "2", **asked}
    while True:
        reply = httpx.get(f"{address}/", params=parameters, timeout=_TIMEOUT_S, follow_redirects=True)
        reply.raise_for_status()
        try:
            page = ET.fromstring(reply.content)  # noqa: S314 - expat bounds what entities may grow to
        except ET.ParseError as error:
            raise CheckpointError(f"{reply.url}: no listing of a bucket ({error})") from error
        yield page
        following = _texts(page, "NextContinuationToken")
        if not following:
            return
        parameters["continuation-token"] = following[0]


def _texts(page: ET.Element, path: str) -> list[str]:
    return [element.text or "" for element in page.iterfind(f"s3:{path}", _NAMESPACE)]


def _is_wanted(path: str) -> bool:
    # Folders within hold the state of the optimiser; pickled weights are not read.
    return bool(path) and "/" not in path and path.endswith(_WANTED)


def _check_whole(name: str, folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    if missing := sorted(shard for shard in named if not (folder / shard).is_file()):
        raise CheckpointError(f"{name}: the bucket lacks {', '.join(missing)}, which its own index names")
