"""A transformers folder comes out as one: what its configuration can say, and what it holds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers", reason="transformers is not installed")

from folders import MODELS, save_model

import compressor
from compressor.agreement import Difference
from compressor.choose.layer_counts import find_counts
from compressor.errors import CompressorError, UsageError
from compressor.files.integrity import check_files
from compressor.formats import hf_format
from compressor.loading.configurations import Configurations
from compressor.loading.hugging_face import load_hugging_face
from compressor.options import Options
from compressor.slicing import following
from compressor.watch import Silent

LLAMA, BERT, CONVNEXT = (
    "LlamaForCausalLM",
    "BertForSequenceClassification",
    "ConvNextForImageClassification",
)


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def compressed(folder: Path, **options: Any) -> Any:
    usual = {"ratio": 0.3, "format": "hf", "round_to": 1, "scope": "layer", "best_effort": True}
    return compressor.compress(f"hf:{folder}", **{**usual, **options})


def config_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def load(folder: Path, **how: Any) -> Any:
    """Load a folder as its users do, by the class that its configuration names."""
    import transformers

    kind = getattr(transformers, config_in(folder)["architectures"][0])
    return kind.from_pretrained(folder, local_files_only=True, **how).eval()


IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


# -- what comes out ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A Llama in bfloat16 and several shards with files beside it, and what is made of it."""
    home = tmp_path_factory.mktemp("llama")
    folder = save_model(LLAMA, home / "m", lambda m: m.bfloat16(), max_shard_size="20KB")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 8], "top_p": 0.9}')
    (folder / "tokenizer.json").write_bytes(b'{"a" : 1}\r\n')
    (folder / "chat_template.jinja").write_text("{{ x }}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    found = compressed(folder)
    found.save(home / "out")
    return folder, home / "out", found


def test_all_layers_get_the_width_that_one_number_says(llama: tuple[Path, Path, Any]) -> None:
    folder, out, _ = llama
    before, after = config_in(folder), config_in(out / "hf")
    smaller = {name for name in before if before[name] != after.get(name)}
    assert smaller == {"intermediate_size", "num_attention_heads", "num_key_value_heads"}
    assert after["num_attention_heads"] % after["num_key_value_heads"] == 0
    shapes = {tuple(p.shape) for n, p in load(out / "hf").named_parameters() if "gate_proj" in n}
    assert shapes == {(after["intermediate_size"], before["hidden_size"])}


def test_the_folder_computes_what_the_result_computes(llama: tuple[Path, Path, Any]) -> None:
    _, out, found = llama
    expected = found.module.float()(IDS).logits
    got = load(out / "hf", dtype=torch.float32)(IDS).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.std() > 0.1


def size_of(shard: Path) -> int:
    """The bytes of the tensors in a file."""
    return sum(tensor.nbytes for tensor in load_file(shard).values())


def test_types_and_shards_are_the_originals(llama: tuple[Path, Path, Any]) -> None:
    folder, out, _ = llama
    assert config_in(out / "hf")["dtype"] == "bfloat16"
    shards = sorted((out / "hf").glob("*.safetensors"))
    assert len(shards) > 1
    assert max(map(size_of, shards)) <= max(map(size_of, folder.glob("*.safetensors")))
    assert (out / "hf/model.safetensors.index.json").is_file()
    assert {t.dtype for shard in shards for t in load_file(shard).values()} == {torch.bfloat16}


def test_what_belongs_to_a_model_is_copied_and_code_is_not(llama: tuple[Path, Path, Any]) -> None:
    folder, out, _ = llama
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (out / "hf" / name).read_bytes() == (folder / name).read_bytes()
    assert not list((out / "hf").glob("*.py"))
    card = (out / "hf/README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n# Mine\n")
    assert "| `intermediate_size` | 48 |" in card


def test_the_report_answers_for_every_file(llama: tuple[Path, Path, Any]) -> None:
    _, out, found = llama
    told, files = json.loads((out / "report.json").read_text()), found.report["files"]
    sizes = sum(path.stat().st_size for path in (out / "hf").iterdir())
    assert told["formats"]["hf"]["size_bytes"] == sizes
    assert told["differences"]["program and transformers folder"] < 1e-5
    assert not told["after"]["latency"] and not (out / "model.onnx").exists()
    (out / "hf/config.json").write_text("{}")
    with pytest.raises(CompressorError, match="is not the file that compress wrote"):
        check_files(out, [name for name in files if name.endswith("config.json")])


def test_heads_that_no_number_says_stay_and_sentence_transformers_stay_such(tmp_path: Path) -> None:
    folder, told = tmp_path / "m", Told()
    save_model(BERT, folder / "0_Transformer")
    places = [{"path": "0_Transformer"}, {"path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(places))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 32}')
    found = compressed(folder, watch=told)
    found.save(tmp_path / "out")
    (said,) = [note for note in told.notes if "stay whole" in note]
    assert "bert.encoder.layer.*.attention.self.query" in said
    assert "BertConfig has no number for them" in said
    home, inner = tmp_path / "out/hf", tmp_path / "out/hf/0_Transformer"
    assert config_in(inner)["intermediate_size"] < 48
    assert (home / "1_Pooling/config.json").read_text() == '{"word_embedding_dimension": 32}'
    assert (home / "modules.json").is_file() and (home / "README.md").is_file()
    expected, got = found.module(IDS).logits, load(inner)(IDS).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_place_outside_the_folder_is_not_followed(tmp_path: Path) -> None:
    save_model("MPNetModel", tmp_path / "other")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/modules.json").write_text('[{"path": "../other"}]')
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_hugging_face("hf:m", tmp_path / "m")


# -- whole layers ---------------------------------------------------------------------------------


def test_a_configuration_says_that_layers_are_gone_and_lists_with_an_entry_each(
    tmp_path: Path,
) -> None:
    folder = save_model("Qwen2ForCausalLM", tmp_path / "m")
    configurations = Configurations(load(folder), folder)
    (count,) = find_counts(configurations, {})
    assert (count.container, count.knob.name) == ("model.layers", "num_hidden_layers")
    said = configurations.edited(count.without({0}))
    assert (said["num_hidden_layers"], len(said["layer_types"])) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [LLAMA, BERT, "Qwen2ForCausalLM", "GPT2LMHeadModel"])
def test_whole_layers_go_and_are_counted(name: str, tmp_path: Path) -> None:
    folder = save_model(name, tmp_path / "m", deep=True)
    data = [{"input_ids": ids} for ids in torch.randint(0, 60, (64, 16))]
    found = compressed(folder, data=data, prune=("block",), search=6, scope="global")
    found.save(tmp_path / "out")
    before, after = config_in(folder), config_in(tmp_path / "out/hf")
    lengths = [(before[n], after[n]) for n in ("num_hidden_layers", "n_layer") if n in before]
    assert lengths == [(4, 4 - len(found.plan.removal.blocks))]
    check_alone(found, tmp_path)


@pytest.mark.slow
def test_whole_layers_go_where_the_users_class_cannot_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a head's width goes, too: the class that is built anew has all new numbers."""
    folder = save_model(LLAMA, tmp_path / "m", deep=True)
    data = [{"input_ids": ids} for ids in torch.randint(0, 60, (64, 16))]
    monkeypatch.setattr(following, "_try", lambda *_: (Difference(math.inf), "", "a test"))
    found = compressed(folder, data=data, prune=("block",), search=6, scope="global", ratio=0.6)
    assert found.plan.form == "program"
    found.save(tmp_path / "out")
    gone = len(found.plan.removal.blocks)
    assert gone
    assert config_in(tmp_path / "out/hf")["num_hidden_layers"] == 4 - gone
    check_alone(found, tmp_path)


# -- what cannot be said -------------------------------------------------------------------------


@pytest.mark.slow
def test_where_nothing_can_be_said_the_usual_result_is_delivered(tmp_path: Path) -> None:
    folder, told = save_model(CONVNEXT, tmp_path / "m"), Told()
    with pytest.raises(CompressorError, match="ConvNextConfig has no number for any width"):
        compressed(folder)
    found = compressed(folder, format=None, watch=told)
    assert "hf" not in found.report["formats"] and "pt2" in found.report["formats"]
    assert any("no transformers folder is delivered" in note for note in told.notes)


def test_what_computes_something_else_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_it = hf_format._load

    def wrong(*given: Any) -> Any:
        module = load_it(*given)
        torch.nn.init.zeros_(module.model.layers[0].mlp.up_proj.weight)
        return module

    monkeypatch.setattr(hf_format, "_load", wrong)
    told = Told()
    found = compressed(save_model(LLAMA, tmp_path / "m"), watch=told)
    found.save(tmp_path / "out")
    assert not (tmp_path / "out/hf").exists() and (tmp_path / "out/plan.json").exists()
    assert any(n.startswith("no transformers folder is delivered, though") for n in told.notes)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="takes widths that a configuration can say"):
        Options(format=("hf",), uniform=False)
    for options in ({"format": "hf"}, {"uniform": True}):
        with pytest.raises(UsageError, match="no transformers folder"):
            compressor.compress(torch.nn.Linear(2, 2), torch.ones(1, 2), **options)


# -- every architecture, in a process that does not have this package ------------------------------

ALONE = """
import sys
sys.modules["compressor"] = None
import torch, transformers, json, pathlib
folder, kept = map(pathlib.Path, sys.argv[1:])
kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
model = kind.from_pretrained(folder, local_files_only=True).eval()
given, expected = torch.load(kept, weights_only=True)
with torch.no_grad():
    found = model(**given)
for name, tensor in expected.items():
    torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
assert any(tensor.numel() > 1 and tensor.std() > 0.01 for tensor in expected.values())
if hasattr(model, "generate") and "input_ids" in given:
    how = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0, "eos_token_id": None}
    fast, slow = (
        model.generate(given["input_ids"], use_cache=cache, **how) for cache in (True, False)
    )
    assert torch.equal(fast, slow) and fast.shape[1] >= 8
tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
if tied and model.get_output_embeddings() is not None:
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
"""

NOT_BY_DEFAULT = {CONVNEXT}
STREAMS = (
    *(BERT, "DistilBertForMaskedLM", "RobertaForMaskedLM", "GPT2LMHeadModel", "OPTForCausalLM"),
    *(LLAMA, "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "PhiForCausalLM"),
    *("ViTForImageClassification", "DeiTForImageClassification", CONVNEXT),
    *("SegformerForSemanticSegmentation", "Wav2Vec2ForCTC"),
)
WITH_HEADS = (BERT, "RobertaForMaskedLM", "OPTForCausalLM")
"""Where the width of a head is what the stream has for each."""

RUNS = [(name, ()) for name in MODELS if name not in NOT_BY_DEFAULT]
RUNS += [(name, ("stream",)) for name in STREAMS]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prune"), RUNS)
def test_stock_transformers_computes_the_same(
    name: str, prune: tuple[str, ...], tmp_path: Path
) -> None:
    found = compressed(save_model(name, tmp_path / "m"), prune=prune)
    found.save(tmp_path / "out")
    assert found.report["after"]["params"] < found.report["before"]["params"]
    if "stream" in prune and name in WITH_HEADS:
        sizes = config_in(tmp_path / "out/hf")
        assert sizes["hidden_size"] / sizes["num_attention_heads"] == 8
    check_alone(found, tmp_path)


def check_alone(found: Any, home: Path) -> None:
    """Check that a process without this package computes what a result computes."""
    examples = load_hugging_face("m", home / "m").examples
    assert examples is not None
    with torch.no_grad():
        outputs = found.module(**examples.kwargs)
    tensors = {name: each for name, each in outputs.items() if isinstance(each, torch.Tensor)}
    kept = dict(examples.kwargs), tensors
    torch.save(kept, home / "kept.pt")
    command = [sys.executable, "-I", "-c", ALONE, str(home / "out/hf"), str(home / "kept.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
