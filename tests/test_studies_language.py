"""The study of a language model's folder: its tokenizer and weights, a rival, and its clock."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.graph.programs.redraw import drawable, redraw_
from tools.stories import Shape, Stories
from tools.studies.language import generation
from tools.studies.language.flap import add_biases, cut_by_fluctuation
from tools.studies.language.folder import read_pieces, write_folder
from tools.studies.language.network import Logits, load_model, perceptron_widths
from tools.studies.torch_pruning import Goal, Hint, prune

TEXTS = ("a", "b", "c", " ", "ab", " a", "bc", "abc", " ab", " abc")
PIECES = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{value:02X}>" for value in range(256)), *TEXTS]
SHAPE = Shape(
    width=32, hidden=24, layers=2, heads=4, kv_heads=2, vocabulary=len(PIECES), context=64
)


def write_pieces(file: Path) -> list[tuple[str, float]]:
    """Write a tokenizer in llama2.c's form; the longer a piece, the later it is merged."""
    scored = [(piece, -float(len(piece) * 100 + n)) for n, piece in enumerate(PIECES)]
    content = struct.pack("<I", 7)
    for piece, score in scored:
        content += struct.pack("<fi", score, len(piece.encode())) + piece.encode()
    file.write_bytes(content)
    return scored


@pytest.fixture(scope="module")
def network() -> Stories:
    torch.manual_seed(0)
    return Stories(SHAPE).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: Stories) -> Path:
    place = tmp_path_factory.mktemp("stories")
    save_file(network.state_dict(), place / "weights.safetensors")
    write_pieces(place / "pieces.bin")
    write_folder(place / "weights.safetensors", place / "pieces.bin", place / "hf", SHAPE)
    return place / "hf"


def merged(text: str, scored: Sequence[tuple[str, float]]) -> list[int]:
    """Encode as llama2.c does: of all neighbours that make a piece the one of the highest score."""
    known = {piece: n for n, (piece, _) in enumerate(scored) if n > 258}
    ids = [known.get(letter, ord(letter) + 3) for letter in " " + text]
    while True:
        pairs = [scored[a][0] + scored[b][0] for a, b in pairwise(ids)]
        found = [(scored[known[piece]][1], -at) for at, piece in enumerate(pairs) if piece in known]
        if not found:
            return ids
        at = -max(found)[1]
        ids[at : at + 2] = [known[pairs[at]]]


def test_the_tokenizer_merges_as_the_original_does(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    scored = write_pieces(tmp_path / "pieces.bin")
    assert [piece for piece, _ in read_pieces(tmp_path / "pieces.bin")] == PIECES
    tokenizer, draw = AutoTokenizer.from_pretrained(folder), random.Random(0)
    for _ in range(50):
        text = "".join(draw.choices("abc xz\n", k=12))
        assert tokenizer(text).input_ids == [1, *merged(text, scored)]
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_folder_computes_what_the_plain_network_does(folder: Path, network: Stories) -> None:
    ids = torch.randint(SHAPE.vocabulary, (3, 17))
    with torch.inference_mode():
        torch.testing.assert_close(Logits(load_model(folder))(ids), network(ids))


def test_torch_pruning_cuts_the_perceptrons(folder: Path) -> None:
    module, ids = Logits(load_model(folder)).eval(), torch.randint(SHAPE.vocabulary, (1, 17))
    made = prune(module, ids, Goal(0.2), Hint(perceptron_widths))
    with torch.inference_mode():
        assert made(ids).shape == module(ids).shape
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in module.parameters())


class Constant(nn.Module):
    """Half of the hidden channels do not depend on the input [n, t, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 16), nn.Linear(16, 4, bias=False)
        redraw_(drawable(self), seed=0)
        with torch.no_grad():
            self.up.weight[::2] = 0

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.up(x))
        return found


def test_what_never_changes_goes_first_and_a_bias_takes_its_place() -> None:
    module, x = Constant().eval(), torch.randn(32, 3, 4)
    asked = {"ratio": 0.5, "round_to": 1}
    result = cut_by_fluctuation(module, x[:1], x, asked)
    assert result.report["after"]["macs"] * 2 == result.report["before"]["macs"]
    made = add_biases(result.module, module, result.plan, x)
    with torch.inference_mode():
        torch.testing.assert_close(made(x), module(x))


def test_folders_take_turns_at_making_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "TOKENS", 3)
    monkeypatch.setattr(generation, "ROUNDS", 2)
    for way in generation.time_folders({"original": folder, "again": folder}):
        assert set(way["tokens_per_second"]) == {"original", "again"}
        assert min(way["tokens_per_second"].values()) > 0
        assert way["noise"] >= 0
    assert generation.size_of_weights(folder) == (folder / "model.safetensors").stat().st_size
