"""The smaller network in the type of numbers that it came in."""

from __future__ import annotations

from compressor.agreement import difference, tolerance_of
from compressor.plain import give_back_types, name_of, narrowed, widened, work_in_float32
from compressor.planning.deciding import Planned
from compressor.records import ExampleInputs
from compressor.slicing import Sliced
from compressor.slicing.compare import outputs_of


def given_back(sliced: Sliced, planned: Planned) -> dict[str, float]:
    """Change the module's tensors, in place, to the types that they came in, and compare its
    outputs with those in float32; a program that does not run in them stays in float32, which is
    noted.

    Returns:
        The largest relative difference, under words for the report; nothing for float32.
    """
    types, module, traced = planned.loaded.types, sliced.module, planned.trace
    if not types:
        return {}
    name, note = name_of(types), planned.stopwatch.note
    examples = traced.examples
    expected = outputs_of(module, examples, traced.ends_after)
    give_back_types(module, types)
    args, kwargs = narrowed((examples.args, dict(examples.kwargs)), types)
    try:
        found = outputs_of(module, ExampleInputs(args, kwargs), traced.ends_after)
    except Exception as error:  # whatever the model's code raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if sliced.plan.form == "program":
            work_in_float32(module)
            note(f"the result computes in float32, since as {name} it does not run: {reason}")
        else:
            note(f"the result is {name}, and does not run in it on this machine: {reason}")
        return {}
    tolerance = max(map(tolerance_of, types.values()), key=lambda each: each.relative)
    off = difference([expected], [[widened(output) for output in found]], tolerance)
    if not off.size <= tolerance.relative:
        words = f"{off.size:.1e} ({off.place})"
        note(f"in {name} the result's outputs differ from those in float32 by {words}")
    return {f"module in {name} and in float32": off.size}
