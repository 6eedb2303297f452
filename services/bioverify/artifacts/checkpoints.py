"""Unpacks TF-Sapiens' weights into the folder that `transcriptformer_pmi.log_ratios` reads.

Nothing is extracted by the archive's own paths: of its regular files only four are taken, known by their last name, and
written where they belong. Weights and gene vectors must have their published sha256, the two JSON files must be JSON.
What is there already and right is not written again.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from pathlib import Path

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import TF_SAPIENS_SHA256
from bioverify.files import replacing_file

_MEMBERS = {
    "config.json": "config.json",
    "model_weights.pt": "model_weights.pt",
    "assay_vocab.json": "vocabs/assay_vocab.json",
    "homo_sapiens_gene.h5": "vocabs/homo_sapiens_gene.h5",
}
MAX_JSON_BYTES = 10_000_000


def unpack(archive: Path, folder: Path) -> None:
    """Fill ``folder``. Raises ArtifactError for an archive that is damaged, lacks a file, or holds another version."""
    if all(_is_right(folder / path) for path in _MEMBERS.values()):
        return
    found = set()
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                stream = tar.extractfile(member) if member.isfile() and name in _MEMBERS else None
                if stream is None or name in found:
                    continue
                if name.endswith(".json") and member.size > MAX_JSON_BYTES:
                    raise ArtifactError(f"{archive}: {member.name} has {member.size:,} bytes, too many for settings")
                target = folder / _MEMBERS[name]
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing_file(target) as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                if not _is_right(target):
                    target.unlink()
                    raise ArtifactError(f"{archive}: {member.name} is not the published one. Remove it and fetch again")
                found.add(name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ArtifactError(f"{archive}: no whole archive ({error}). Remove it and fetch it again") from error
    if missing := _MEMBERS.keys() - found:
        raise ArtifactError(f"{archive}: has no {', '.join(sorted(missing))}. The official file has changed")


def _is_right(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.name in TF_SAPIENS_SHA256:
        return sha256_of(path) == TF_SAPIENS_SHA256[path.name]
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
