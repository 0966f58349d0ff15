"""The user's class follows where blocks are taken out: what is left of it runs its own code."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases import Case
from test_blocks import SIZES, blocky, multiply_by_zero, names_of, shortened
from torch import Tensor, nn
from twin import Analysed, analysed_case, assert_same, live, random_keep

import compressor
from compressor.errors import CompressorError
from compressor.graph.analysis import analyse
from compressor.graph.blocks import find_blocks
from compressor.graph.trace import trace
from compressor.options import ExportOptions
from compressor.records import ExampleInputs, Plan, Trace
from compressor.slicing import Sliced, apply_plan, as_module, slice_network, variants
from compressor.slicing.compare import outputs_of
from compressor.slicing.from_sizes import derive
from compressor.slicing.leaving import find_leaving, leave, rename, without_cache
from compressor.slicing.stand_in import Muted, StandIn
from compressor.slicing.taking_out import take_out
from compressor.studies.export import export_retrained
from compressor.watch import Silent


def kinds_of(module: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [path for path, layer in module.named_modules() if isinstance(layer, kind)]


class Image(nn.Module):
    """Branches of several layers, added in the network's own forward, once in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm, self.one, self.two = nn.BatchNorm2d(6), nn.Conv2d(6, 12, 1), nn.Conv2d(12, 6, 1)
        self.three = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.two(self.one(self.norm(x)).relu())
        y = self.three(x)
        y += x
        return self.head(y.relu().mean((2, 3)))


def test_layers_whose_branch_is_gone_give_zeros() -> None:
    of = analysed_case(Case(Image, sample=(3, 8, 8)))
    blocks = find_blocks(of.trace.program)
    shorter = take_out(of.trace, blocks)
    assert kinds_of(shorter.module, Muted) == ["norm", "one", "two", "three"]
    assert not kinds_of(shorter.module, StandIn)
    assert_same(multiply_by_zero(of.trace.program, blocks), shorter.module, of.case)
    assert {name.split(".")[0] for name, _ in shorter.module.named_parameters()} == {"stem", "head"}
    x = torch.randn(2, 3, 12, 10, dtype=torch.float64)
    alone = of.trace.module
    expected = alone.head(alone.stem(x).relu().mean((2, 3)))
    torch.testing.assert_close(shorter.module(x), expected)


def test_a_plan_with_muted_layers_is_replayed() -> None:
    of = analysed_case(Case(Image, sample=(3, 8, 8)))
    shorter = take_out(of.trace, find_blocks(of.trace.program)[:1])
    network = analyse(shorter)
    made = slice_network(shorter, network, random_keep(network, 0))
    assert made.plan.form == "class" and made.plan.removal is not None
    assert set(made.plan.removal.muted) == {"norm", "one", "two"}
    plan = Plan.from_json(made.plan.to_json())
    replayed = apply_plan(plan, Image().double().eval())
    replayed.load_state_dict(made.module.state_dict())
    assert_same(made.module, replayed, of.case)


class Shifted(nn.Module):
    """The branch is not zero where its layer is: it is a cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.branch(x).cos())


def test_zeros_that_make_no_branch_zero_are_not_left() -> None:
    of = analysed_case(Case(Shifted, sample=(5,)))
    blocks = find_blocks(of.trace.program)
    shorter = take_out(of.trace, blocks)
    assert shorter.shorter is not None and shorter.shorter.obstacle
    assert_same(multiply_by_zero(of.trace.program, blocks), shorter.module, of.case)


class Squashed(nn.Module):
    """More than a branch: what it adds to is squashed."""

    def __init__(self, *, shifted: bool) -> None:
        super().__init__()
        self.branch, self.shifted = nn.Linear(6, 6), shifted

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return (x + (y.cos() if self.shifted else y)).tanh()


def test_one_block_that_zeros_do_not_serve_leaves_the_others_theirs() -> None:
    layers = nn.Linear(5, 6), Squashed(shifted=False), Squashed(shifted=True), nn.Linear(6, 3)
    of = analysed_case(Case(lambda: nn.Sequential(*layers), sample=(5,)))
    blocks = find_blocks(of.trace.program)
    shorter = take_out(of.trace, blocks)
    assert kinds_of(shorter.module, Muted) == ["1.branch"]
    assert kinds_of(shorter.module, StandIn) == ["2"]
    assert_same(multiply_by_zero(of.trace.program, blocks), shorter.module, of.case)


def test_the_masked_network_has_the_blocks_no_more() -> None:
    of = analysed_case(Case(Image, sample=(3, 8, 8)))
    shorter = take_out(of.trace, find_blocks(of.trace.program)[:1])
    network = analyse(shorter)
    made = slice_network(shorter, network, random_keep(network, 0))
    assert made.plan.tensors
    masked = compressor.masked(of.trace.module, made.plan)
    assert not masked.approximate and masked.rows
    assert_same(masked.module, made.module, of.case)


class Masked(nn.Module):
    """A layer with two branches, whose weights are its own parameters, not those of layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix, self.up = (nn.Parameter(torch.randn(width, width) / 3) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = (x @ self.mix)[:, None]
        y = nn.functional.scaled_dot_product_attention(y, y, y, attn_mask=mask)
        x = x + y[:, 0]
        return x + (x @ self.up).relu()


class Masks(nn.Module):
    """The exporter sees a mask that lets all through where the class hands on None."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layers = nn.Linear(5, 6), nn.ModuleList(Masked(6) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask, length = None, x.shape[1]
        if torch.compiler.is_exporting():
            all_through = torch.arange(length)[None, None, :, None] >= 0
            mask = all_through.expand(x.shape[0], 1, length, length)
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


def test_a_mask_of_sizes_alone_is_computed_where_it_is_needed() -> None:
    of = analysed_case(Case(Masks, sample=(4, 5)))
    blocks = find_blocks(of.trace.program)
    some = [blocks[1], blocks[2]]
    shorter = take_out(of.trace, some)
    assert shorter.shorter is not None and not shorter.shorter.obstacle
    assert kinds_of(shorter.module, StandIn) == ["layers.0", "layers.1"]
    assert shorter.shorter.stand_ins["layers.0"]["arguments"] == (0, None)
    assert_same(multiply_by_zero(of.trace.program, some), shorter.module, of.case)
    plan = slice_network(shorter, analyse(shorter), {}).plan
    with pytest.raises(CompressorError, match="run what is left of their operators"):
        compressor.masked(of.trace.module, plan)


class Values(nn.Module):
    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of, self.layer = of, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.of(x)


def _written(x: Tensor) -> Tensor:
    zeros = x.new_zeros(x.shape)
    zeros[:, 0] = 1
    return zeros


@pytest.mark.parametrize(
    ("of", "can"),
    [
        (lambda x: torch.arange(x.shape[0])[:, None] >= 0, True),
        (lambda x: torch.ones(x.shape[0], 4).tril() * torch.tensor([1.0, 2, 3, 4]), True),
        (lambda x: x > 0, False),
        (lambda x: torch.rand(x.shape[0], 4), False),
        (_written, False),
    ],
)
def test_what_depends_on_sizes_alone_is_computed_from_them(of: Any, can: bool) -> None:
    x = torch.randn(2, 4)
    traced = trace(Values(of).eval(), ExampleInputs((x,)))
    program = traced.program
    named = {node.name: node for node in program.graph.nodes}
    product = list(named.values())[-2]
    places = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    held = {named[n]: program.constants[t] for n, t in places.items() if t in program.constants}
    (given,) = (named[name] for name, target in places.items() if target is None)
    found = derive(product.all_input_nodes[1], [given], held)
    assert (found is not None) is can
    if found is not None:
        more = torch.randn(5, 4)
        torch.testing.assert_close(found(more), of(more))


# -- items that leave ------------------------------------------------------------------------------


class Layer(nn.Module):
    """A branch beside the stream; it knows its place among the others."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx, self.up = layer_idx, nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(x).relu()


class Listed(nn.Module):
    """Layers in a list: run one after the other, or with a factor that depends on the place."""

    def __init__(self, *, by_place: bool = False) -> None:
        super().__init__()
        self.by_place, self.config = by_place, SimpleNamespace(num_layers=4, layer_types=[*"abab"])
        self.stem, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.layers = nn.ModuleList(Layer(i) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, layer in enumerate(self.layers):
            x = layer(x) * (1 + i if self.by_place else 1)
        return self.head(x)


def without_two(model: nn.Module) -> tuple[Analysed, Sliced]:
    of = analysed_case(Case(lambda: model, sample=(4, 5)))
    blocks = {block.name: block for block in find_blocks(of.trace.program)}
    shorter = take_out(of.trace, [blocks["layers.0.up"], blocks["layers.2.up"]])
    return of, slice_network(shorter, analyse(shorter), {})


def test_items_that_do_nothing_leave() -> None:
    of, made = without_two(Listed())
    leaving = find_leaving(made, of.trace)
    assert leaving == ("layers.0", "layers.2")
    module = copy.deepcopy(made.module)
    leave(module, leaving)
    assert_same(made.module, module, of.case)
    assert [layer.layer_idx for layer in module.layers] == [0, 1]
    assert module.config == SimpleNamespace(num_layers=2, layer_types=["b", "b"])
    names = rename(dict(made.module.named_parameters()), leaving)
    assert list(names.values()) == list(dict(module.named_parameters()))
    assert names["layers.3.up.bias"] == "layers.1.up.bias"


class Casting(nn.Module):
    """A norm that makes its input the type that it has already, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.float64)
        return self.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class Normed(nn.Module):
    """Two branches behind norms; the exporter reads the stream from within the first norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.norm_up, self.up = Casting(), nn.Linear(6, 6), Casting(), Layer(0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm(x))
        return x + self.up.up(self.norm_up(x)).relu()


@pytest.mark.parametrize(("names", "leaving"), [(("1.mix",), ()), (("1.mix", "1.up.up"), ("1",))])
def test_a_conversion_that_changes_nothing_holds_no_layer(
    names: tuple[str, ...], leaving: tuple[str, ...]
) -> None:
    model = nn.Sequential(nn.Linear(5, 6), Normed(), Normed(), nn.Linear(6, 3))
    of = analysed_case(Case(lambda: model, sample=(4, 5)))
    named = {block.name: block for block in find_blocks(of.trace.program)}
    shorter = take_out(of.trace, [named[name] for name in names])
    made = slice_network(shorter, analyse(shorter), {})
    assert made.plan.form == "class" and not kinds_of(made.module, StandIn)
    assert find_leaving(made, of.trace) == leaving


def test_items_whose_place_counts_stay() -> None:
    of, made = without_two(Listed(by_place=True))
    assert made.plan.form == "class" and find_leaving(made, of.trace) == ()


class Copied(nn.Sequential):
    """Items with names, of which one is reached by its name too."""

    def __init__(self) -> None:
        names = ("stem", "one", "two", "head")
        layers = nn.Linear(5, 6), Layer(0), Layer(1), nn.Linear(6, 3)
        super().__init__(OrderedDict(zip(names, layers, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))))


@pytest.mark.parametrize(("own", "left"), [(True, ()), (False, ("one",))])
def test_items_with_names_leave_where_nobody_calls_them(own: bool, left: tuple[str, ...]) -> None:
    model: nn.Module = Copied()
    if not own:
        model = nn.Sequential(OrderedDict(model.named_children()))
    of = analysed_case(Case(lambda: model, sample=(5,)))
    shorter = take_out(of.trace, find_blocks(of.trace.program)[:1])
    made = slice_network(shorter, analyse(shorter), {})
    assert find_leaving(made, of.trace) == left
    assert rename(["two.up.bias"], left) == {"two.up.bias": "two.up.bias"}


def test_the_result_and_what_is_loaded_have_fewer_items(tmp_path: Path) -> None:
    result, folder = shortened(), tmp_path / "result"
    removal = result.plan.removal
    assert removal is not None and set(removal.leaving) == set(removal.blocks)
    assert len(result.module.blocks) == len(blocky().blocks) - len(removal.blocks)
    result.save(folder)
    loaded = compressor.load(folder, blocky)
    state = loaded.state_dict()
    assert state.keys() == result.module.state_dict().keys()
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if name.startswith("blocks.") and name.endswith("weight"):
                parameter.mul_(1.5)
        x = torch.randn(3, 3, 8, 8)
        expected = loaded(x)
    torch.save(loaded.state_dict(), tmp_path / "more.pt")
    options = ExportOptions(weights=str(tmp_path / "more.pt"))
    export_retrained(folder, options, Silent(), target=tmp_path / "again")
    again = compressor.load(tmp_path / "again", blocky)
    with torch.no_grad():
        torch.testing.assert_close(again(x), expected)
        torch.testing.assert_close(compressor.load_program(tmp_path / "again")(x), expected)


# -- networks of transformers ----------------------------------------------------------------------

GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 100}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
OPT = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "vocab_size": 100}
ARCHITECTURES = {
    "BertModel": SIZES,
    "LlamaForCausalLM": {**SIZES, "num_key_value_heads": 2},
    "GPT2LMHeadModel": GPT2,
    "OPTForCausalLM": OPT,
    "T5ForConditionalGeneration": T5,
    "ViTModel": {**SIZES, "image_size": 32, "patch_size": 8},
}


def given_to(name: str, size: int) -> ExampleInputs:
    """Inputs of two samples: texts of `size` tokens, or images, whose size is the network's."""
    if name == "ViTModel":
        return ExampleInputs((), {"pixel_values": torch.randn(2, 3, 32, 32, dtype=torch.float64)})
    ids = torch.randint(100, (2, size), generator=torch.Generator().manual_seed(size))
    given: dict[str, Any] = {"input_ids": ids}
    if name.startswith("T5"):
        given["decoder_input_ids"] = ids.flip(1)
    return ExampleInputs((), given if name == "BertModel" else {**given, "use_cache": False})


def half_of(traced: Trace) -> Trace:
    blocks = find_blocks(traced.program)
    chosen = set(random.Random(0).sample(names_of(blocks), len(blocks) // 2))
    return take_out(traced, [block for block in blocks if block.name in chosen])


def assert_equal(expected: nn.Module, found: nn.Module, inputs: ExampleInputs) -> None:
    for a, b in zip(outputs_of(expected, inputs), outputs_of(found, inputs), strict=True):
        assert float((a - b).abs().max()) <= 1e-10 * float(a.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_behind_a_mask_follows(name: str) -> None:
    """Half of the blocks out; at other batches and lengths the class does what a program does."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    kind = getattr(transformers, name)
    model = live(kind(kind.config_class(**ARCHITECTURES[name])))
    traced = trace(model, given_to(name, 9))
    shorter = half_of(traced)
    assert shorter.shorter is not None and not shorter.shorter.obstacle
    assert not kinds_of(shorter.module, StandIn)
    for example in variants(traced):
        assert_equal(as_module(shorter.program), shorter.module, example)
    longer = given_to(name, 14)
    assert_equal(as_module(half_of(trace(model, longer)).program), shorter.module, longer)
    network = analyse(shorter)
    inner = {group.name for group in network.groups if group.role == "channels"}
    keep = {name: kept for name, kept in random_keep(network, 0).items() if name in inner}
    assert slice_network(shorter, network, keep).plan.form == "class"


WITHIN = {
    "LlamaForCausalLM": ("model.layers.1.",),
    "GPT2LMHeadModel": ("transformer.h.1.",),
    "OPTForCausalLM": ("model.decoder.layers.1",),
    "T5ForConditionalGeneration": ("encoder.block.1.", "decoder.block.1."),
    "ViTModel": ("layers.1.",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHIN)
def test_a_saved_folder_has_fewer_layers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    kind = getattr(transformers, name)
    model, inputs = live(kind(kind.config_class(**ARCHITECTURES[name]))), given_to(name, 9)
    traced = trace(model, inputs)
    some = [b for b in find_blocks(traced.program) if b.name.startswith(WITHIN[name])]
    shorter = take_out(traced, some)
    made = slice_network(shorter, analyse(shorter), {})
    leaving = find_leaving(made, traced)
    assert leaving == tuple(sorted(path.removesuffix(".") for path in WITHIN[name]))
    removal = made.plan.removal
    assert removal is not None
    plan = replace(made.plan, removal=replace(removal, leaving=leaving))
    assert bool(without_cache(traced.module, made.plan)) is (name != "ViTModel")
    assert not without_cache(traced.module, plan)
    module = copy.deepcopy(made.module)
    leave(module, leaving)
    module.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert loaded.config.num_hidden_layers == model.config.num_hidden_layers - 1
    assert_equal(as_module(made.program), loaded, inputs)
    if name.endswith(("LMHeadModel", "CausalLM")):
        texts = (
            module.generate(inputs.kwargs["input_ids"], max_new_tokens=5, use_cache=cached)
            for cached in (True, False)
        )
        assert torch.equal(*texts)
