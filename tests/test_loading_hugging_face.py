"""`hf:FOLDER`: a transformers folder on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import CompressorError, UsageError
from compressor.graph.trace import trace
from compressor.loading import find_examples, load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=20,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_loads_with_its_weights_and_example_inputs(folder: Path) -> None:
    loaded = load_model(f"hf:{folder}")
    assert (type(loaded.module).__name__, loaded.weights) == ("LlamaForCausalLM", "loaded")
    examples = find_examples(loaded, (), None)
    assert set(examples.kwargs) == {"input_ids"}
    assert trace(loaded.module, examples).batch_symbol


def test_a_configuration_alone_has_random_weights(folder: Path) -> None:
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    assert load_model(f"hf:{folder}").weights == "random weights"


def test_a_folder_without_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_model(f"hf:{folder}")


def test_a_broken_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CompressorError, match="transformers cannot load"):
        load_model(f"hf:{folder}")


def test_a_folder_is_known_without_its_prefix(folder: Path) -> None:
    loaded = load_model(str(folder))
    assert (type(loaded.module).__name__, loaded.weights) == ("LlamaForCausalLM", "loaded")
