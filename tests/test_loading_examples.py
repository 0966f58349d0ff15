"""Example inputs: how they are written, which are taken, and that they are run before use."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor.loading as loading
from compressor.errors import CompressorError, UsageError
from compressor.formats.model_file import save
from compressor.loading import (
    find_examples,
    foretelling,
    load_model,
    load_program_file,
    normalise_examples,
    parse_inputs,
)
from compressor.records import ExampleInputs, LoadedModel


def loaded(module: nn.Module, examples: ExampleInputs | None = None) -> LoadedModel:
    return LoadedModel(module, "net", "a test", "random weights", None, examples)


class Pair(nn.Module):
    """Two inputs; the second by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, ids: Tensor, *, scale: Tensor) -> Tensor:
        return self.fc(self.embed(ids).mean(1) * scale)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        ("1x3x8x8", (1, 3, 8, 8), torch.float32),
        ("5", (5,), torch.float32),
        ("2x4:float16", (2, 4), torch.float16),
        ("2x4:float64", (2, 4), torch.float64),
        ("2x9:int64<512", (2, 9), torch.int64),
        ("2x9:int32", (2, 9), torch.int32),
        ("2x9:uint8<200", (2, 9), torch.uint8),
        ("2x9:bool", (2, 9), torch.bool),
    ],
)
def test_inputs_are_parsed(spec: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    (tensor,) = parse_inputs([spec]).args
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)


def test_names_are_keywords_and_the_rest_is_positional() -> None:
    examples = parse_inputs(["ids=1x4:int64<8", "1x3", "2x3"])
    assert [tuple(arg.shape) for arg in examples.args] == [(1, 3), (2, 3)]
    assert list(examples.kwargs) == ["ids"]
    assert examples.origin == "--input"


def test_integers_fill_the_range_below_their_bound() -> None:
    (tensor,) = parse_inputs(["1000:int64<5"]).args
    assert set(tensor.tolist()) == {0, 1, 2, 3, 4}


def test_the_seed_decides_the_values() -> None:
    one, same, other = (parse_inputs(["64"], seed).args[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "specs",
    [["1x3x"], [""], ["0x3"], ["1,3"], ["1x3:float33"], ["1x3<5"], ["1x3:int64<0"],
     ["1x3:uint8<999"], ["a=1x3", "a=1x3"], ["-1x3"], ["99999x99999x99999"], ["1 x 3"]],
)  # fmt: skip
def test_inputs_that_cannot_be_read(specs: list[str]) -> None:
    with pytest.raises(UsageError, match="--input") as caught:
        parse_inputs(specs)
    assert "1x3x224x224" in caught.value.next_step


def test_a_mistyped_dtype_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean float32"):
        parse_inputs(["1x3:flaot32"])


X = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, 2), (X, 2), {}),
        ({"x": X}, (), {"x": X}),
        (((X,), {"y": X}), (X,), {"y": X}),
    ],
    ids=["tensor", "tuple", "dict", "pair"],
)
def test_python_examples(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    examples = normalise_examples(given)
    assert len(examples.args) == len(args)
    assert all(one is other for one, other in zip(examples.args, args, strict=True))
    assert dict(examples.kwargs) == kwargs


@pytest.mark.parametrize("given", [None, 3, "1x3", (), {}, [X], {1: X}])
def test_python_examples_of_other_forms_are_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="example inputs"):
        normalise_examples(given)


def test_the_order_of_what_is_taken() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1))
    own = ExampleInputs((torch.zeros(1, 3, 9, 9),), origin="the program's own")
    assert find_examples(loaded(net, own), ["1x3x5x5"]).origin == "--input"
    assert find_examples(loaded(net, own), []).origin == "the program's own"
    assert find_examples(loaded(net), []).origin == "a guess: 1x3x224x224"


@pytest.mark.parametrize(
    ("net", "spec"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 3)), "1x1x28x28"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 3)), "1x3x32x32"),
        (nn.Sequential(nn.Linear(12, 4), nn.ReLU()), "1x12"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), "1x12"),
        (nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 2)), "1x16:int64<8"),
        (nn.Conv1d(2, 4, 3), "1x2x1024"),
        (nn.GRU(5, 4, batch_first=True), "1x16x5"),
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 3),
                nn.AdaptiveAvgPool2d((1, 4)),
                nn.Flatten(1, 2),
                nn.GRU(4, 3, batch_first=True),
            ),
            "1x1x28x28",
        ),
    ],
)
def test_guesses_are_tried_and_named(net: nn.Module, spec: str) -> None:
    assert find_examples(loaded(net), []).origin == f"a guess: {spec}"


class OverPixels(nn.Module):
    """Attention over all pixels: at 224 rows and columns its weights would take 10 GB."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return (tokens @ tokens.transpose(1, 2)).softmax(2).mean((1, 2))


def test_a_guess_that_takes_the_memory_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretelling, "free_bytes", lambda: 10**8)
    assert find_examples(loaded(OverPixels()), []).origin == "a guess: 1x1x32x32"


def test_when_no_guess_works_it_is_said_what_was_tried() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(7, 3))
    with pytest.raises(CompressorError, match="no guess works") as caught:
        find_examples(loaded(net), [])
    assert "1x3x224x224" in caught.value.where
    assert "1x3x32x32" in caught.value.where
    assert "--input" in caught.value.next_step


def test_a_network_that_tells_nothing_about_its_input() -> None:
    with pytest.raises(CompressorError, match="no guess works"):
        find_examples(loaded(Pair()), [])


def test_a_wrong_shape_names_the_innermost_layer() -> None:
    block = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(50, 3))
    net = nn.Sequential(nn.Identity(), block)
    with pytest.raises(CompressorError, match=r"--input \(1x3x9x9\)") as caught:
        find_examples(loaded(net), ["1x3x9x9"])
    assert caught.value.where.startswith("layer 1.2 (Linear) on 1x98: RuntimeError: ")
    assert "\n" not in caught.value.where


def test_a_wrong_number_of_inputs_names_the_model() -> None:
    with pytest.raises(CompressorError) as caught:
        find_examples(loaded(nn.Sequential(nn.ReLU())), ["1x3", "1x3"])
    assert caught.value.where.startswith("the model on 1x3, 1x3: TypeError")


def test_finding_examples_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    find_examples(loaded(net), [])
    assert net.training
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def test_a_saved_model_comes_back_with_its_examples(tmp_path: Path) -> None:
    model, x = small_cnn().train(), torch.randn(1, 3, 8, 8)
    save(model, x, tmp_path / "model.pt")
    assert model.training
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]
    back = load_model(str(tmp_path / "model.pt"))
    assert (back.recognised, back.weights) == ("a torch.export program", "loaded")
    taken = find_examples(back, [])
    assert taken.origin == "the program's own"
    assert torch.equal(taken.args[0], x)
    for batch in (1, 5):
        inputs = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(back.module(inputs), model.eval()(inputs))


def test_a_loaded_program_is_a_module_like_others(tmp_path: Path) -> None:
    save(small_cnn(), torch.randn(2, 3, 8, 8), tmp_path / "model.pt")
    module = load_model(str(tmp_path / "model.pt")).module
    assert not module.training
    assert module.eval() is module
    assert {name for name, _ in module.named_parameters()} == {
        "0.weight", "0.bias", "1.weight", "1.bias"
    }  # fmt: skip


def test_keywords_and_integers_are_saved(tmp_path: Path) -> None:
    model = Pair()
    examples = ((torch.zeros(1, 6, dtype=torch.int64),), {"scale": torch.ones(1, 4)})
    save(model, examples, tmp_path / "pair.pt2")
    back = load_model(str(tmp_path / "pair.pt2"))
    assert back.examples is not None
    assert list(back.examples.kwargs) == ["scale"]
    ids, scale = torch.randint(8, (3, 6)), torch.randn(3, 4)
    torch.testing.assert_close(back.module(ids, scale=scale), model(ids, scale=scale))


def test_a_batch_that_must_be_fixed_is_fixed(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, -1) if x.shape[0] == 2 else x

    save(Fixed(), torch.randn(2, 6), tmp_path / "fixed.pt")
    assert load_model(str(tmp_path / "fixed.pt")).module(torch.randn(2, 6)).shape == (4, 3)


def test_a_saved_file_names_no_source_file(tmp_path: Path) -> None:
    save(small_cnn(), torch.randn(1, 3, 8, 8), tmp_path / "model.pt")
    assert b".py" not in (tmp_path / "model.pt").read_bytes()


def test_attention_is_saved_with_its_layers(tmp_path: Path) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    save(layer, torch.randn(1, 5, 8), tmp_path / "layer.pt")
    assert torch.backends.mha.get_fastpath_enabled() == before
    program = load_program_file(tmp_path / "layer.pt")
    assert torch.ops.aten.linear.default in {node.target for node in program.graph.nodes}


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def test_a_model_that_cannot_be_exported_leaves_an_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"earlier")
    with pytest.raises(CompressorError, match="cannot be exported") as caught:
        save(Branching(), torch.randn(1, 3), path)
    assert "\n" not in caught.value.what
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_an_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"earlier")

    def full(program: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(CompressorError, match="No space left on device"):
        save(small_cnn(), torch.randn(1, 3, 8, 8), path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="cannot be written"):
        save(small_cnn(), torch.randn(1, 3, 8, 8), tmp_path / "nowhere" / "model.pt")


def test_a_program_file_must_be_a_program(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"hello")
    for path, problem in (
        (tmp_path / "model.pt2", "not a torch"),
        (tmp_path / "missing.pt2", "not there"),
    ):
        with pytest.raises(CompressorError, match=problem):
            load_program_file(path)


class Answers(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


def test_where_normal_values_have_no_finite_answer_others_are_drawn() -> None:
    taken = find_examples(loaded(Answers(lambda x: x.log().sum(1))), ["4x64"])
    assert taken.origin == "--input, between 0 and 1"
    assert 0 < float(taken.args[0].min()) < float(taken.args[0].max()) < 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: x / (x - x), "all NaN or infinite"),
        (lambda x: {"a": None, "b": "a cat"}, "no tensor, but NoneType, str"),
        (lambda x: (), "no tensor, but nothing"),
        (lambda x: sys.exit(3), "leaves the program"),
    ],
)
def test_answers_that_show_nothing_are_refused(answer: Any, says: str) -> None:
    with pytest.raises(CompressorError, match=says) as caught:
        find_examples(loaded(Answers(answer)), ["2x3"])
    assert "2x3" in str(caught.value)


def test_the_stage_exposes_what_it_promises() -> None:
    assert all(hasattr(loading, name) for name in loading.__all__)
