"""Draw random inputs for a program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree


def random_inputs(
    program: ExportedProgram, batch: int, device: str, seed: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Draw inputs like the program's examples, with `batch` in place of each free size.

    Whole numbers are repeated rather than drawn, since not every one is valid.

    Returns:
        Positional inputs, and inputs by name, on the device.
    """
    generator = torch.Generator().manual_seed(seed)
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    specs = iter(program.graph_signature.user_inputs)

    def draw(leaf: Any) -> Any:
        fake = values.get(str(next(specs)))
        if not isinstance(leaf, Tensor) or not isinstance(fake, Tensor):
            return leaf
        shape = [size if isinstance(size, int) else batch for size in fake.shape]
        if leaf.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=leaf.dtype).to(device)
        repeated = [-(-new // old) for new, old in zip(shape, leaf.shape, strict=True)]
        return leaf.repeat(repeated)[tuple(slice(size) for size in shape)].to(device)

    assert program.example_inputs is not None
    args, kwargs = pytree.tree_map(draw, program.example_inputs)
    return args, kwargs
