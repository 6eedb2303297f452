"""What a service needs of the system, copied out of the base image: `python rootfs.py /rootfs PACKAGE …`.

Kept are this Python without its installers, the packages named, and those that own the shared libraries Python loads.
No shell, package manager or compiler is among them, and no file with set-uid. The lists of files of what is kept stay
where Debian has them, so that a scanner of images still tells package and version.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

DPKG = Path("/var/lib/dpkg")
MERGED = ("bin", "lib", "lib64", "sbin")
# No package owns these; /usr/local has the Python of images that bring their own.
MADE = (
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf.d",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/ssl",
    "/usr/local",
)
NEEDLESS = re.compile(
    r"/usr/share/(doc/(?!.*/copyright)|man|locale|info|lintian|bash-completion|perl5|python-wheels)"
    r"|/gconv/|/dist-packages/|/site-packages/(pip|setuptools|wheel|_distutils_hack|pkg_resources|distutils-)"
    r"|/python3[.0-9]*/(ensurepip|idlelib|lib2to3|pydoc_data|test|turtledemo|tkinter|config-)|\.a$"
)


def owners(paths: Iterable[str]) -> set[str]:
    """The packages that these files belong to; files of no package have no part in it."""
    named = {path for given in paths for path in (given, given.removeprefix("/usr"), "/usr" + given)}
    found = subprocess.run(["dpkg", "-S", *sorted(named)], capture_output=True, text=True, check=False).stdout
    return {line.split(":")[0] for line in found.splitlines()}


def libraries(stdlib: Path, python: Path) -> Iterator[str]:
    """The shared libraries that Python and its extension modules are linked against."""
    for binary in (python, *stdlib.rglob("*.so")):
        linked = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(/\S+) \(0x", linked):
            yield path
            yield str(Path(path).resolve())


def copy(path: Path, root: Path) -> None:
    if not path.is_symlink() and path.is_dir():
        return
    place = root / str(path.parent.resolve() / path.name).lstrip("/")
    if place.is_symlink() or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, place, follow_symlinks=False)
    if not place.is_symlink():
        place.chmod(stat.S_IMODE(place.stat().st_mode) & ~(stat.S_ISUID | stat.S_ISGID))


def main(root: Path, named: list[str]) -> None:
    stdlib, python = Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve()
    kept = set(named) | owners(libraries(stdlib, python)) | owners(map(str, (python, *stdlib.glob("*.py"))))
    records = (DPKG / "status").read_text().split("\n\n")
    kept_records = [record for record in records if record.partition("\n")[0].removeprefix("Package: ") in kept]
    listed = subprocess.run(["dpkg", "-L", *sorted(kept)], capture_output=True, text=True, check=True).stdout
    made = (str(path) for name in MADE for path in (Path(name), *Path(name).rglob("*")))
    links = (str(path) for path in python.parent.glob("python3*"))
    for name in (*listed.splitlines(), *made, *links):
        path = Path(name)
        if (path.is_symlink() or path.exists()) and not NEEDLESS.search(name):
            copy(path, root)
    for name in MERGED:
        if Path("/", name).is_symlink():
            copy(Path("/", name), root)
    (root / DPKG.relative_to("/")).mkdir(parents=True, exist_ok=True)
    (root / DPKG.relative_to("/") / "status").write_text("\n\n".join(kept_records) + "\n")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    print(*sorted(kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
