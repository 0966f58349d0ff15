"""Everything that a bare machine lacks, in pieces of bounded size."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools.gpu_rows import places
from tools.gpu_rows.present import PLATFORMS, PYTHON, lacking


def pack(data_root: Path | None, *, with_networks: bool = True) -> dict[str, int]:
    """Fill the pieces: wheels, data, and the smaller networks that need no GPU to be made.

    Args:
        data_root: The folder with the data and the trained network; None: without them.

    Returns:
        The pieces' sizes in bytes.

    Raises:
        SystemExit: A wheel cannot be had, data are missing, or a piece is too large.
    """
    places.WHEELS.mkdir(parents=True, exist_ok=True)
    for name, version in lacking().items():
        _wheel(name, version)
    if data_root is not None:
        for piece, names in places.PIECES.items():
            (places.PACK / piece).mkdir(exist_ok=True)
            for name in names:
                _copy(data_root / name, places.PACK / piece / name)
    if with_networks:
        from tools.gpu_rows.networks import make_ahead

        make_ahead(places.NETWORKS)
    sizes = {piece: _size(places.PACK / piece) for piece in places.PIECES}
    for piece, size in sizes.items():
        print(f".gpu/{piece}: {size / 2**20:.1f} MiB")
        if size > places.MOST_BYTES:
            raise SystemExit(f".gpu/{piece} is larger than {places.MOST_BYTES / 2**20:.0f} MiB")
    return sizes


def _wheel(name: str, version: str) -> None:
    """Fetch the wheel for the machine; where there is only a source distribution of pure Python,
    build it."""
    normal = name.replace("-", "_")
    if any(file.name.lower().startswith(f"{normal}-{version}-") for file in _wheels()):
        return
    wanted, pip = f"{name}=={version}", (sys.executable, "-m", "pip", "--quiet")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    fetched = (*pip, "download", "--no-deps", "--only-binary=:all:", "--implementation", "cp")
    where = ("--python-version", PYTHON, *platforms, "--dest", str(places.WHEELS), wanted)
    if subprocess.run((*fetched, *where), capture_output=True, check=False).returncode == 0:
        return
    built = (*pip, "wheel", "--no-deps", "--wheel-dir", str(places.WHEELS), wanted)
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    made = [f for f in _wheels() if f.name.lower().startswith(f"{normal}-")]
    if done.returncode or not all(file.name.endswith("-none-any.whl") for file in made):
        raise SystemExit(f"there is no wheel of {wanted} for the machine: {done.stderr[-400:]}")


def _wheels() -> list[Path]:
    return sorted(places.WHEELS.glob("*.whl"))


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise SystemExit(f"there is no {source}; --data-root names the folder with the data")
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, target)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def installed() -> None:
    """Install the wheels in a folder of their own, once; it has to be on the path already when
    Python starts."""
    if places.SITE.exists() or not _wheels():
        return
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        print(f"the wheels are for Python {PYTHON}: this one has to have all that is needed")
        return
    unfinished = places.SITE.with_name("site.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    how = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(unfinished))
    subprocess.run((sys.executable, "-m", "pip", "install", *how, *map(str, _wheels())), check=True)
    unfinished.rename(places.SITE)
