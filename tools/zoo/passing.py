"""One pass: analysed without hints, halved, sliced, compared, exported, counted."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from compressor.agreement import FLOAT32, is_live
from compressor.choose import KINDS, Bounds, Budget, Choice, Ranking, Share, select
from compressor.errors import CompressorError
from compressor.formats import export_onnx
from compressor.formats.verifying import verify_file
from compressor.graph.analysis import analyse
from compressor.graph.counting import count_macs, count_params
from compressor.graph.network import Network
from compressor.graph.programs.attention_path import unfuse_attention
from compressor.graph.programs.beginning import end_after
from compressor.graph.programs.redraw import drawable, redraw_
from compressor.graph.trace import trace
from compressor.records import ExampleInputs, Trace
from compressor.recover import recalibrate_batch_norm
from compressor.score import Calibration, Material, score
from compressor.slicing import as_module, slice_network, variants
from compressor.slicing.compare import outputs_of
from compressor.slicing.program import slice_program
from tools.zoo.failing import WrongError, describe, time_limit
from tools.zoo.members import Judge, Subject
from tools.zoo.twin import is_faint, live_shapes, rounding_error, twin_difference

RATIO = 0.5
ROUNDING = 1e-4
"""Relative error of float32 above which forms of a network cannot be compared."""

DRAWS = 5
"""How often weights are drawn anew for the comparison with the ONNX file."""

SMALL_CUT = 0.05
TWIN_TOLERANCE = 1e-8
LARGEST = 300_000_000
"""Parameters above which the program is only run and counted."""

Record = dict[str, Any]


@dataclass
class Pass:
    """What is found out is written into `record`; `tell` is called before every stage."""

    record: Record
    onnx_seconds: int
    tell: Callable[[Record], None] = lambda _: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.record["stage"] = name
        self.tell(self.record)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begin, 2)
            self.record["seconds"] = self.seconds

    @unfuse_attention()
    def run(self, build: Callable[[], Subject]) -> Record:
        """The record, with "status" passed or failed."""
        try:
            self._run(build)
            self.record |= {"status": "passed", "stage": ""}
        except Exception as error:
            self.record |= {"status": "failed", "error": describe(error)}
        return self.record

    def _run(self, build: Callable[[], Subject]) -> None:
        with self.stage("build"):
            torch.manual_seed(0)
            subject = build()
            if subject.judge is None:
                redraw_(drawable(subject.module))
        with self.stage("trace"):
            traced = trace(subject.module, subject.examples)
        if subject.judge is None and sum(p.numel() for p in traced.module.parameters()) <= LARGEST:
            with self.stage("settle"):
                self.record["rounding"] = settle_(traced)
        with self.stage("analyse"):
            network = analyse(traced)
        self._note_network(traced, network)
        with self.stage("select"):
            choice, roles = halve(network, traced)
        self._note_choice(network, choice, roles)
        if network.cost.params() > LARGEST:
            self._check_large(traced, subject.examples, network, choice)
            return
        with self.stage("slice"):
            sliced = slice_network(traced, network, choice.keep)
        self.record |= {
            "form": sliced.plan.form,
            "obstacle": sliced.plan.obstacle,
            "stand_ins": {
                path: type(traced.module.get_submodule(path)).__name__
                for path in sliced.plan.stand_ins
            },
        }
        with self.stage("run"):
            self._require_shapes(traced, as_module(sliced.program))
        with self.stage("count"):
            self._require_counts(traced, subject.examples, choice, sliced.module)
        with self.stage("twin"):
            worst = twin_difference(traced, network, network.masks(choice.keep), sliced.program)
            self.record["twin"] = worst
            if not worst <= TWIN_TOLERANCE:
                raise WrongError(f"differs from its masked twin by {worst:.1e}")
        with self.stage("onnx"):
            self.record["onnx"] = self._onnx(traced, sliced.program, subject.judge is None)
        if subject.judge is not None:
            with self.stage("quality"):
                self._require_quality(traced, network, subject.judge)

    def _note_network(self, traced: Trace, network: Network) -> None:
        reasons = Counter(
            p.reason
            for p in network.protections
            if p.reason not in ("a model input", "a model output")
        )
        self.record |= {
            "macs": network.cost.macs(),
            "params": network.cost.params(),
            "nodes": len(traced.program.graph.nodes),
            "groups": dict(Counter(group.role for group in network.groups)),
            "protections": dict(reasons.most_common()),
            "notes": list(traced.notes),
        }

    def _note_choice(self, network: Network, choice: Choice, roles: list[str]) -> None:
        sizes = network.sizes({name: len(kept) for name, kept in choice.keep.items()})
        self.record |= {
            "macs_after": choice.after,
            "params_after": network.cost.params(sizes),
            "removed": choice.removed,
            "roles": roles,
        }

    def _check_large(
        self, traced: Trace, one: ExampleInputs, network: Network, choice: Choice
    ) -> None:
        self.record["onnx"] = self.record["twin"] = "too large"
        with self.stage("slice"):
            program = slice_program(traced, network, network.masks(choice.keep))
        self.record |= {"form": "program", "obstacle": "too large to try", "stand_ins": {}}
        with self.stage("run"):
            self._require_shapes(traced, as_module(program))
        with self.stage("count"):
            self._require_counts(traced, one, choice, as_module(program))

    @staticmethod
    def _require_shapes(traced: Trace, module: torch.nn.Module) -> None:
        before, _ = live_shapes(traced.module, traced)
        after, live = live_shapes(module, traced)
        if before != after:
            raise WrongError(f"output shapes {before} became {after}")
        if not live:
            raise WrongError("the outputs do not depend on the inputs")

    def _require_counts(
        self, traced: Trace, one: ExampleInputs, choice: Choice, module: torch.nn.Module
    ) -> None:
        """Predicted and counted agree, before and after, for a batch of one where it is free."""
        examples, batch = (one, 1) if traced.batch_symbol else (traced.examples, traced.batch)
        forms = (
            ("before", traced.module, self.record["macs"], self.record["params"]),
            ("after", module, choice.after, self.record["params_after"]),
        )
        for when, form, macs, params in forms:
            with end_after(form, traced.ends_after):
                counted = count_macs(form, examples.args, examples.kwargs) // batch
            if counted != macs:
                raise WrongError(f"{when}: {macs} MACs predicted, {counted} counted")
            if count_params(form) != params:
                raise WrongError(
                    f"{when}: {params} parameters predicted, {count_params(form)} counted"
                )

    def _onnx(self, traced: Trace, program: torch.export.ExportedProgram, is_drawn: bool) -> float:
        self.record["draws"] = calm_(as_module(program), traced) if is_drawn else 0
        with time_limit(self.onnx_seconds), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(program, path, batch_symbol=traced.batch_symbol)
            return verify_file(program, path, traced)

    def _require_quality(self, traced: Trace, network: Network, judge: Judge) -> None:
        """Cutting a few of the least salient channels, without repair, costs little."""
        data = Calibration(traced, [([x], y) for x, y in judge.calibration], judge.loss)
        scores = score(Material(network, tensors_of(traced), data), "taylor")
        few = select(network, Ranking(scores), Budget(Share(SMALL_CUT))).keep
        before = judge.evaluate(traced.module)
        after = judge.evaluate(as_module(slice_program(traced, network, network.masks(few))))
        self.record["quality"] = f"{SMALL_CUT:.0%} fewer MACs: {before.name} {before} → {after}"
        if before.worse_by(after) > before.tolerance:
            raise WrongError(self.record["quality"])


def tensors_of(traced: Trace) -> dict[str, torch.Tensor]:
    program = traced.program
    return {name: program.state_dict[name] for name in program.graph_signature.parameters}


def halve(network: Network, traced: Trace) -> tuple[Choice, list[str]]:
    """Half of the MACs gone with the default roles, else with streams too, else what can be; and
    the roles that were cut. Channels are chosen at random: widths and positions are then uneven."""
    ranking = Ranking(score(Material(network, tensors_of(traced)), "random"))
    budget, streams = Budget(Share(RATIO)), Bounds(prune=("stream",))
    for bounds in (Bounds(), streams):
        try:
            choice = select(network, ranking, budget, bounds)
            break
        except CompressorError:
            continue
    else:
        choice = select(network, ranking, replace(budget, best_effort=True), streams)
    if not choice.keep:
        usual = sorted(name for name, kind in KINDS.items() if kind.by_default)
        raise WrongError(f"nothing was pruned; default roles are {usual}")
    cut = {group.role for group in network.groups if group.name in choice.keep}
    return choice, sorted(cut)


def settle_(traced: Trace) -> float:
    """The relative rounding error of the network in float32.

    Drawn weights can make activations grow from block to block until rounding hides everything, or
    fade until nothing of the input is left: batch norms are then re-estimated on the inputs, as in
    a network that was trained.
    """
    rounding = _rounding(traced)
    if (rounding > ROUNDING or is_faint(traced)) and not traced.examples.kwargs:
        inputs = [(x.args, None) for x in variants(traced)[:2]]
        with suppress(CompressorError):
            recalibrate_batch_norm(traced.module, inputs)
        rounding = _rounding(traced)
    return rounding


def _rounding(traced: Trace) -> float:
    return rounding_error(traced.module, variants(traced)[1], traced.ends_after)


def calm_(module: torch.nn.Module, traced: Trace) -> int:
    """How often weights had to be drawn until rounding does not hide what is compared; 0: they are
    the same as before.

    Sharp attention, which cutting widths may sharpen, makes a network chaotic: noise of 1e-6 on its
    input becomes a tenth of its output, and two correct forms of it differ by as much. Nor can
    float32 tell anything of a network that hardly answers to its input.
    """
    for attempt in range(DRAWS):
        given = variants(traced)
        answers = is_live([outputs_of(module, x) for x in given])
        if answers and all(rounding_error(module, x) <= FLOAT32.relative for x in given):
            return attempt
        redraw_(drawable(module), seed=attempt + 1)
        if not traced.examples.kwargs:
            with suppress(CompressorError):
                recalibrate_batch_norm(module, [(x.args, None) for x in given])
    return DRAWS
