"""Files damaged at random: they are refused, or what comes of them is the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import compressor
from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.network import Network
from compressor.graph.trace import trace
from compressor.loading import load_model, load_program_file
from compressor.records import ExampleInputs
from compressor.run import footprints
from compressor.run.replaying import keep_of_plan
from compressor.slicing import as_module, check_source
from compressor.slicing.plan_file import read_plan
from compressor.studies import compare
from tools.selfcheck.damage import edit
from tools.tiny import TinyNet, inputs

REFUSED = "refused"
OTHERS = (None, -1, 0, 1, 2.5, "", "text", True, [], {}, [0], {"a": 1}, 10**30, float("nan"))


def damaged(content: bytes, rng: Random) -> bytes:
    """Bits flipped, a part cut off, zeroed, doubled or drawn anew."""
    begin = rng.randrange(len(content))
    end = min(len(content), begin + rng.choice((1, 1, 4, 64)))
    part, flipped = content[begin:end], content[begin] ^ (1 << rng.randrange(8))
    return rng.choice(
        (
            lambda: content[:begin],
            lambda: content[:begin] + bytes([flipped]) + content[begin + 1 :],
            lambda: content[:begin] + bytes(len(part)) + content[end:],
            lambda: content[:begin] + part + content[begin:],
            lambda: content[:begin] + content[end:],
            lambda: content[:begin] + rng.randbytes(len(part)) + content[end:],
        )
    )()


def edited(document: Any, rng: Random) -> Any:
    """A copy of a JSON document with something at some depth taken out or of another type."""
    copied = json.loads(json.dumps(document))
    holder, key = rng.choice(list(_places(copied)))
    if rng.random() < 0.4:
        del holder[key]
    else:
        holder[key] = rng.choice(OTHERS)
    return copied


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found


# -- what is damaged, and what is made of it ------------------------------------------------------


class Honest:
    """A result that is whole, the file of its original, and what comes of them."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.home = Path(self._kept.name)
        torch.manual_seed(0)
        self.module = TinyNet().eval()
        usual, footprints.LATENCY_SECONDS = footprints.LATENCY_SECONDS, 0.05
        try:
            compressor.compress(self.module, inputs(), round_to=1).save(self.home / "result")
        finally:
            footprints.LATENCY_SECONDS = usual
        torch.save(self.module.state_dict(), self.home / "net.pt")
        compressor.save(self.module, inputs(), self.home / "net.pt2")
        self.network: Network = analyse(trace(self.module, ExampleInputs((inputs(),))))

    def outputs(self, module: nn.Module) -> list[float]:
        with torch.no_grad():
            found: Tensor = module(inputs(3, seed=1))
        return [float(x) for x in found.flatten()]


@cache
def honest() -> Honest:
    return Honest()


def _weights_of_a_result(folder: Path) -> Any:
    return honest().outputs(compressor.load(folder / "result", TinyNet))


def _program_of_a_result(folder: Path) -> Any:
    return honest().outputs(compressor.load_program(folder / "result"))


def _plan(folder: Path) -> Any:
    plan = read_plan(folder / "result" / "plan.json")
    check_source(plan, honest().module)
    return keep_of_plan(plan, honest().network)


def _report(folder: Path) -> Any:
    entries = [compare.read_result(folder / "result")]
    with redirect_stdout(StringIO()):
        Console().print(compare.table(entries))
    return compare.notes(entries) and None


def _saved(folder: Path) -> Any:
    from tools import tiny

    loaded = load_model(str(folder / "net.pt"), factory=f"{tiny.__file__}:TinyNet")
    return honest().outputs(loaded.module.eval())


def _program(folder: Path) -> Any:
    return honest().outputs(as_module(load_program_file(folder / "net.pt2")).eval())


class Target:
    """A file, how it is damaged, what is made of it. `by_itself`: no report says what it was."""

    def __init__(
        self, file: str, use: Callable[[Path], Any], *, as_json: bool = False,
        by_itself: bool = False, upto: Callable[[bytes], int] = len,
    ) -> None:  # fmt: skip
        self.file, self.use, self.as_json = file, use, as_json
        self.by_itself, self.upto = by_itself, upto

    def damage(self, path: Path, rng: Random) -> None:
        content = path.read_bytes()
        if self.as_json:
            path.write_text(json.dumps(edited(json.loads(content), rng)), encoding="utf-8")
        else:
            limit = self.upto(content)
            path.write_bytes(damaged(content[:limit], rng) + content[limit:])


def _header(safetensors: bytes) -> int:
    """Weights by themselves have no checksum: a changed number is another number."""
    return 8 + int.from_bytes(safetensors[:8], "little")


TARGETS: Mapping[str, Target] = {
    "weights of a result": Target("result/model.safetensors", _weights_of_a_result),
    "weights' header by itself": Target(
        "result/model.safetensors", _weights_of_a_result, by_itself=True, upto=_header
    ),
    "plan of a result": Target("result/plan.json", _weights_of_a_result),
    "plan by itself": Target("result/plan.json", _plan, by_itself=True),
    "plan by itself, other values": Target("result/plan.json", _plan, as_json=True, by_itself=True),
    "plan when a class comes back, other values": Target(
        "result/plan.json", _weights_of_a_result, as_json=True, by_itself=True
    ),
    "report by itself": Target("result/report.json", _report, by_itself=True),
    "report by itself, other values": Target(
        "result/report.json", _report, as_json=True, by_itself=True
    ),
    "program of a result": Target("result/model.pt2", _program_of_a_result),
    "report of a result": Target("result/report.json", _weights_of_a_result),
    "file of torch.save": Target("net.pt", _saved),
    "file of compressor.save": Target("net.pt2", _program),
}


def problem(target: Target, rng: Random) -> str:
    """What is wrong with how one damaged file is met; "" if it is refused, or makes no odds."""
    whole = honest()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(whole.home, folder, dirs_exist_ok=True)
        if target.by_itself:
            edit(folder / "result" / "report.json", lambda report: report.pop("files"))
        expected = _tried(target.use, whole.home)
        target.damage(folder / target.file, rng)
        found = _tried(target.use, folder)
    if found in (REFUSED, expected) or expected == found:
        return ""
    return found if isinstance(found, str) else "silently another network"


def _tried(use: Callable[[Path], Any], folder: Path) -> Any:
    try:
        return use(folder)
    except CompressorError as error:
        return REFUSED if error.consequence and error.next_step else f"unclear: {error}"
    except Exception as error:  # whatever gets through is what is looked for
        return f"{type(error).__name__}: {error}"
