"""Give the smaller network back as it came: its types of numbers, how its weights are computed.

Caches of keys and values are on again, and items that do nothing are said to leave.
"""

from __future__ import annotations

from dataclasses import replace

from compressor.agreement import difference, tolerance_of
from compressor.errors import CompressorError
from compressor.files.folder import WEIGHTS
from compressor.formats import save_weights
from compressor.graph.trace import restore_caches
from compressor.listing import some_of
from compressor.loading.plain import (
    give_back_types,
    name_of,
    narrow,
    put_all_back,
    widen,
    work_in_float32,
)
from compressor.records import ExampleInputs
from compressor.run.deliver import Delivery
from compressor.run.opened import Run
from compressor.slicing import Sliced
from compressor.slicing.compare import outputs_of, tolerance_for
from compressor.slicing.leaving import find_leaving, without_cache


def give_back(run: Run, sliced: Sliced, delivery: Delivery) -> dict[str, float]:
    """Change the sliced module, in place, to what went in.

    Its numbers get their types back and, where the user asks for it, its weights are computed from
    others again, which `model.safetensors` follows.

    Returns:
        Largest relative differences that this makes, under words for the report.

    Raises:
        CompressorError: With its weights computed the module gives other outputs.
    """
    differences = _put_into_types(run, sliced)
    if run.options.keep_parametrisations and run.loaded.computed:
        differences |= _put_back_computed(run, sliced, delivery)
    return differences


def say_what_leaves(run: Run, sliced: Sliced) -> Sliced:
    """Return the network with a plan that says which items leave in the end, which is noted."""
    leaving, removal = find_leaving(sliced, run.trace), sliced.plan.removal
    if not leaving or removal is None:
        return sliced
    run.stopwatch.note(
        f"out of the module go {some_of(leaving)}: the items after them move up, so that their "
        "parameters have other names than in the files"
    )
    return replace(sliced, plan=replace(sliced.plan, removal=replace(removal, leaving=leaving)))


def give_caches_back(run: Run, sliced: Sliced) -> None:
    """Switch caches of keys and values on, in place, where they were; not if layers lack theirs.

    How many positions a cache holds is read from one of its layers, which must not be empty.
    """
    lost = without_cache(run.before.trace.module, sliced.plan)
    if lost:
        run.stopwatch.note(
            f"caches of keys and values stay off (use_cache=False), since {some_of(lost)} fill "
            "none any more"
        )
        return
    restore_caches(sliced.module, run.loaded.given or run.loaded.module)


def _put_back_computed(run: Run, sliced: Sliced, delivery: Delivery) -> dict[str, float]:
    types, module, traced = run.loaded.types, sliced.module, run.trace
    args, kwargs = traced.examples.args, dict(traced.examples.kwargs)
    if types:
        args, kwargs = narrow((args, kwargs), types)
    examples = ExampleInputs(args, kwargs)
    expected = outputs_of(module, examples, traced.ends_after)
    put_all_back(module, run.loaded.computed, sliced.plan.tensors)
    tolerance = tolerance_for(module)
    off = difference([expected], [outputs_of(module, examples, traced.ends_after)], tolerance)
    if not off.size <= tolerance.relative:
        raise CompressorError(
            f"with its weights computed again the network's outputs differ by {off.size:.1e}",
            where="--keep-parametrisations",
            consequence="nothing is written",
            next_step="leave the option out: the result holds the weights that act",
        )
    save_weights(module, delivery.files.path / WEIGHTS, delivery.plan.aliases)
    return {"module with and without its weights computed": off.size}


def _put_into_types(run: Run, sliced: Sliced) -> dict[str, float]:
    """Change the module's tensors, in place, to the types that they came in.

    Its outputs are compared with those in float32. A program that does not run in these types stays
    in float32, which is noted.

    Returns:
        The largest relative difference, under words for the report; nothing for float32.
    """
    types, module, traced = run.loaded.types, sliced.module, run.trace
    if not types:
        return {}
    name, note = name_of(types), run.stopwatch.note
    examples = traced.examples
    expected = outputs_of(module, examples, traced.ends_after)
    give_back_types(module, types)
    args, kwargs = narrow((examples.args, dict(examples.kwargs)), types)
    try:
        outputs = outputs_of(module, ExampleInputs(args, kwargs), traced.ends_after)
    except Exception as error:  # whatever the model's code raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if sliced.plan.form == "program":
            work_in_float32(module)
            note(f"the result computes in float32, since as {name} it does not run: {reason}")
        else:
            note(f"the result is {name}, and does not run in it on this machine: {reason}")
        return {}
    tolerance = max(map(tolerance_of, types.values()), key=lambda each: each.relative)
    off = difference([expected], [[widen(output) for output in outputs]], tolerance)
    if not off.size <= tolerance.relative:
        words = f"{off.size:.1e} ({off.place})"
        note(f"in {name} the result's outputs differ from those in float32 by {words}")
    return {f"module in {name} and in float32": off.size}
