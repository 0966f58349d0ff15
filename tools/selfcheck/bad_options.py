"""Options that cannot be meant, budgets out of reach, places that cannot be written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tools.selfcheck.refusal import INPUT, OVER, USAGE, BadInput
from tools.tiny import write_model


def _usage(name: str, *arguments: str, says: tuple[str, ...]) -> BadInput:
    return BadInput(name, ("net.pt", *INPUT, *arguments, *OVER), says, code=USAGE)


BAD_VALUES = [
    BadInput("nothing at all", (), ("MODEL",), code=USAGE),
    *(
        _usage(f"--ratio={ratio}", f"--ratio={ratio}", says=("ratio",))
        for ratio in ("0", "1", "-0.5", "-1", "1.5", "nan", "inf", "half")
    ),
    *(
        _usage(" ".join(arguments), *arguments, says=says)
        for arguments, says in (
            (("--rato", "0.5"), ("--rato", "--ratio")),
            (("--criterion", "l3"), ("l3", "l2")),
            (("--round-to", "0"), ("--round-to",)),
            (("--norm-p", "0"), ("--norm-p", "positive")),
            (("--norm-p", "inf"), ("--norm-p", "positive")),
            (("--reduction", "median"), ("median", "first")),
            (("--normalise", "median"), ("median", "lamp")),
            (("--scope", "everywhere"), ("everywhere", "isomorphic")),
            (("--criterion", "fisher"), ("fisher", "--data")),
            (("--epochs", "-1"), ("--epochs",)),
            (("--device", "abacus"), ("abacus", "--device cpu")),
            (("--prune", "everything"), ("everything", "stream")),
            (("--std", "0"), ("--std",)),
            (("--use", "found.json", "--scope", "layer"), ("--use", "--scope has no say")),
            (("--max-macs", "-3"), ("--max-macs",)),
            (("--max-macs", "many"), ("many",)),
            (("--max-latency-ms", "0"), ("--max-latency-ms",)),
            (("--max-drop", "-1"), ("--max-drop",)),
            (("--ratio", "0.5", "--max-macs", "1M"), ("--ratio", "--max-macs")),
            (("--of", "flavour"), ("flavour",)),
            (("--steps", "0"), ("--steps",)),
            (("--batch-size", "0"), ("--batch-size",)),
            (("--calibration", "0"), ("--calibration",)),
            (("--lr=-1",), ("--lr",)),
            (("--seed", "one"), ("one",)),
            (("--threads", "0"), ("--threads",)),
            (("--protect", "3.wait"), ("'3.wait' matches no", "3.weight")),
            (("--layer-ratio", "3.wait=0.5"), ("--layer-ratio '3.wait' matches no", "3.weight")),
        )
    ),
    *(
        _usage(f"--layer-ratio {given}", "--layer-ratio", given,
               says=(repr(given), "--layer-ratio 'blocks.*=0.3'"))
        for given in ("3", "=0.3", "3=", "3=half", "3=1", "3=0.95", "3=-0.1", "3=nan")
    ),
]  # fmt: skip


def _linear(folder: Path) -> None:
    write_model(folder / "net.pt", nn.Sequential(nn.Linear(6, 3)))


def _thesis(folder: Path) -> None:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter1.tex").write_text("years of work", encoding="utf-8")


BUDGETS = [
    BadInput("ratio out of reach", ("net.pt", *INPUT, "--ratio", "0.999", *OVER),
             ("out of reach", "at most", "--best-effort")),
    BadInput("nothing to prune", ("net.pt", "--input", "1x6", *OVER), ("no group",), _linear),
    BadInput("everything protected", ("net.pt", *INPUT, "--protect", "*", *OVER), ("no group",)),
    BadInput("layers' ratios beyond the ratio",
             ("net.pt", *INPUT, "--layer-ratio", "*=0.8", "--ratio", "0.2", *OVER),
             ("alone removes", "more than --ratio 0.2")),
]  # fmt: skip
PLACES = [
    BadInput("result that is there", ("net.pt", *INPUT, "--out", "out"), ("exists", "--force"),
             code=USAGE),
    BadInput("folder of other files", ("net.pt", *INPUT, "--out", "thesis", "--force"),
             ("chapter1.tex", "untouched"), _thesis, USAGE),
    BadInput("place under a file", ("net.pt", *INPUT, "--out", "net.pt/out"),
             ("cannot be written",)),
    BadInput("place that is a file", ("net.pt", *INPUT, "--out", "net.pt", "--force"),
             ("net.pt", "no folder"), code=USAGE),
    BadInput("place that is a link", ("net.pt", *INPUT, "--out", "link", "--force"),
             ("link",), lambda f: (f / "link").symlink_to("elsewhere"), USAGE),
    BadInput("name that is too long", ("net.pt", *INPUT, "--out", "x" * 300),
             ("cannot be written",)),
    BadInput("disk that is full", ("net.pt", *INPUT, "--out", "new"), ("the disk is full",),
             largest_file=5000),
    BadInput("disk that cannot be written", ("net.pt", *INPUT, "--out", "/proc/out"),
             ("cannot be written",)),
]  # fmt: skip
COMMANDS = [
    BadInput("inspect nothing", ("inspect",), ("MODEL",), code=USAGE),
    BadInput("inspect what is not there", ("inspect", "no.pt"), ("no.pt",), code=USAGE),
    BadInput("inspect into a folder", ("inspect", "net.pt", *INPUT, "--graph", "out.txt"),
             (".svg",), code=USAGE),
    BadInput("resume nothing", ("resume", "nowhere"), ("no unfinished run",), code=USAGE),
    BadInput("resume a result", ("resume", "out"), ("no unfinished run",), code=USAGE),
    BadInput("resume a damaged run", ("resume", "gone"), ("no unfinished run",),
             lambda f: _unfinished(f, "{"), USAGE),
    BadInput("resume a run of another version", ("resume", "gone"), ("no unfinished run",),
             lambda f: _unfinished(f, '{"schema": 99}'), USAGE),
    BadInput("over an unfinished run",
             ("net.pt", *INPUT, "--data", "data.npz", "--epochs", "1", "--out", "gone"),
             ("unfinished run", "compress resume"), lambda f: _unfinished(f, "{}", "made"), USAGE),
    BadInput("bench nothing", ("bench",), ("nothing to time",), code=USAGE),
    BadInput("bench what is not there", ("bench", "no.onnx"), ("no.onnx",), code=USAGE),
    BadInput("bench no ONNX", ("bench", "bad.onnx"), ("bad.onnx",),
             lambda f: (f / "bad.onnx").write_bytes(b"no network at all")),
    BadInput("bench with 0 threads", ("bench", "net.pt", *INPUT, "--threads", "0"),
             ("--threads",), code=USAGE),
    BadInput("bench into a picture", ("bench", "net.pt", *INPUT, "--out", "a.svg"), (".json",),
             code=USAGE),
    BadInput("compare nothing", ("compare",), ("nothing to compare",), code=USAGE),
    BadInput("compare what is not there", ("compare", "nowhere"), ("nowhere",), code=USAGE),
    BadInput("compare no result", ("compare", "out"), ("out", "a folder that compress has written"),
             code=USAGE),
    BadInput("compare into another format", ("compare", "out", "--out", "a.png"), (".svg",),
             code=USAGE),
    BadInput("unknown option of bench", ("bench", "net.pt", "--colour", "red"), ("--colour",),
             code=USAGE),
    *(
        BadInput(f"sensitivity {' '.join(arguments)}",
                 ("sensitivity", "net.pt", *INPUT, *arguments, "--out", "new"), says, code=code)
        for arguments, code, says in (
            (("--ratios", "0.5,1"), USAGE, ("--ratios", "between 0 and 1")),
            (("--ratios", "half"), USAGE, ("half",)),
            (("--samples", "0"), USAGE, ("--samples",)),
            (("--epochs", "1"), USAGE, ("--epochs",)),
            (("--criterion", "taylor"), USAGE, ("needs training data",)),
            (("--protect", "*"), 1, ("no group",)),
            (("--data", "none.npz"), USAGE, ("none.npz",)),
        )
    ),
]  # fmt: skip


def _unfinished(folder: Path, run: str, *records: str) -> None:
    home = folder / "gone.unfinished"
    home.mkdir()
    (home / "run.json").write_text(run, encoding="utf-8")
    for name in records:
        torch.save({}, home / f"{name}.pt")


BAD_OPTIONS = [*BAD_VALUES, *BUDGETS, *PLACES, *COMMANDS]
