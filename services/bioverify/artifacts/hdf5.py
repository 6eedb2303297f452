"""HDF5 files of strangers, held to their own content.

HDF5 lets a file name others as the place of its data: by external links, external storage and virtual data sets. A
file that somebody sent would then read whatever its builder may read, into an artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bioverify.artifacts.errors import ArtifactError


def open_hdf5(path: Path) -> Any:
    """The open file. Raises OSError if it is none, ArtifactError that says which part of it lies in another file."""
    import h5py  # only builders have it

    file = h5py.File(path, "r")
    elsewhere: list[str] = []

    def look(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            elsewhere.append(name)
        elif isinstance(link, h5py.HardLink):
            node = file[name]
            if isinstance(node, h5py.Dataset) and (node.external or node.is_virtual):
                elsewhere.append(name)

    try:
        file.visititems_links(look)
    except BaseException:
        file.close()
        raise
    if elsewhere:
        file.close()
        raise ArtifactError(
            f"keeps {elsewhere[0]!r} in another file, which is not read. Write it into this one (load and save it with "
            "the tool that made it)"
        )
    return file
