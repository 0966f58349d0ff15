"""The command line; nothing outside the standard library is imported before it is asked for."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tools.gpu_rows import places


def main(words: list[str]) -> int:
    """Pack, run, merge, or try all of it without a GPU."""
    asked = _parser().parse_args(words)
    if asked.pack:
        from tools.gpu_rows.pack import pack

        pack(asked.data_root, with_networks=not asked.without_networks)
        return 0
    if asked.merge is not None:
        from tools.gpu_rows.merge import merge

        print(merge(asked.merge))
        return 0
    if asked.dry_run:
        return _tried()
    from tools.gpu_rows.pack import installed
    from tools.gpu_rows.run import run

    installed()
    return run(asked.out, is_dry=False, only=tuple(asked.only), seconds=asked.seconds)


def _tried() -> int:
    """Every part on the CPU with tiny sizes, and what they recorded as a page."""
    from tools.gpu_rows.merge import merge
    from tools.gpu_rows.run import run

    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        code = run(folder / "out", is_dry=True)
        page = merge(folder / "out", results=folder, earlier=folder / "earlier", of_dry_run=True)
        if code:
            print((folder / "out" / places.LOG).read_text()[-6000:])
        print(page)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/gpu", description=main.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pack", action="store_true", help="fill .gpu/ with what a machine lacks")
    what.add_argument("--out", type=Path, metavar="FOLDER", help="measure, and record there")
    what.add_argument("--merge", type=Path, metavar="FOLDER", help="take records into docs/results")
    what.add_argument("--dry-run", action="store_true", help="try every part on the CPU, tiny")
    data = os.environ.get("COMPRESSOR_DATA")
    parser.add_argument(
        "--data-root", type=Path, default=data, help="for --pack: the data's folder"
    )
    parser.add_argument(
        "--without-networks", action="store_true", help="for --pack: none made ahead"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="of --out: parts")
    parser.add_argument("--seconds", type=float, default=570.0, help="of --out: at most")
    return parser
