"""Text as data: files, tables, windows, and what is learnt and measured of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import compressor
from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.loading.data import Binding, Data, Forward, Language, Reading, load_data
from compressor.loading.data.text.hiding import Hiding
from compressor.metrics import HIGHER, LOWER, scale_of
from compressor.recover import USUAL, EpochResult, Measure, Objective, TrainingState, task_of
from compressor.recover import tasks as T
from compressor.run import footprints
from compressor.run.subject import measure_named
from tests.texts import VOCABULARY, folder_of, network, tokenizer, toy_text, train_on

TEXT = toy_text(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tokenizer."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(path)
    return path


def read(path: Path, folder: Path | None, kind: str = "llama", **language: Any) -> Data:
    module = network(kind)
    task = task_of(module)
    known = {"tokenizer": folder, "vocabulary": VOCABULARY, "task": task, **language}
    binding = Binding(Forward.of(module))
    data = load_data([str(path)], Reading(binding=binding, language=Language(**known)))
    object.__setattr__(data, "task", task)
    return data.bind(binding)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# -- plain text ------------------------------------------------------------------------------------


def test_windows_follow_one_another_with_special_tokens_around_each(tmp_path, folder):
    path = tmp_path / "novel"  # no ending says that it is text
    path.write_text(TEXT)
    data = read(path, folder, length=10)
    ids = tokenizer()(TEXT, add_special_tokens=False)["input_ids"]
    assert len(data) == len(ids) // 8
    windows = data.fetch(range(len(data)))
    found = windows.inputs.kwargs["input_ids"]
    assert found[:, 0].eq(2).all() and found[:, -1].eq(3).all()
    assert found[:, 1:-1].flatten().tolist() == ids[: 8 * len(data)]
    assert windows.inputs.kwargs["attention_mask"].all()
    assert windows.target.equal(found)  # shifted where the loss is computed
    path.write_text(TEXT + "the cat sees")
    rest = (len(ids) + 3) % 8
    assert f"{rest} at the end are left out" in read(path, folder, length=10).notes[0]
    assert not data.is_filled and not data.is_ragged


def test_a_short_text_is_one_sample_and_files_of_a_folder_are_cut_each(tmp_path, folder):
    (tmp_path / "texts" / "deeper").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("the cat sees bread.")
    assert len(read(tmp_path / "texts" / "a.txt", folder, length=32)) == 1
    (tmp_path / "texts" / "deeper" / "b.txt").write_text(TEXT)
    assert read(tmp_path / "texts", folder, length=32).first_sample.shapes.startswith(
        "input_ids 1x32"
    )


@pytest.mark.parametrize(
    ("kind", "positions", "length"), [("llama", 64, 64), ("roberta", 26, 25), ("llama", None, 512)]
)
def test_the_length_is_what_the_network_takes(tmp_path, folder, kind, positions, length):
    (tmp_path / "a.txt").write_text(TEXT * 3)
    module = network(kind)

    def accepts(call: Call) -> bool:
        try:
            call.to(module)
        except (IndexError, RuntimeError):
            return False
        return True

    binding = Binding(Forward.of(module))
    language = Language(tokenizer=folder, positions=positions)
    reading = Reading(binding=binding, language=language, accepts=accepts)
    data = load_data([str(tmp_path / "a.txt")], reading).bind(binding)
    assert data.first_sample.kwargs["input_ids"].shape == (1, length)


@pytest.mark.parametrize(
    ("content", "language", "words"),
    [
        (b"fine\nnot \xff fine\n", {}, r"not in UTF-8[\s\S]*line 2, byte 5 of it"),
        (b"some text and then \0 a number", {}, "zero byte"),
        ("hello".encode("utf-16"), {}, "is in UTF-16"),
        (b" \n \n", {}, "holds no text"),
        (b"the cat", {"tokenizer": None}, r"no tokenizer is known[\s\S]*--tokenizer FOLDER"),
        (b"the cat", {"tokenizer": Path("nowhere")}, "no folder nowhere"),
        (b"the cat sees", {"vocabulary": 9}, r"gives the token \d+, and the network knows 9"),
        (b"the cat", {"length": 65, "positions": 64}, "between 4 and 64"),
        (b"the cat", {"length": 3}, "from 4 on"),
        (b'{"text": "the cat"}\n{"text": \n', {}, r"no JSON[\s\S]*line 2"),
        (b'{"text": "the cat"}\n{"text": null}\n', {}, r"has nothing there[\s\S]*row 2"),
        (b'{"one": "the cat", "two": "a dog"}\n', {}, "several of text: one, two"),
        (b'{"text": ""}\n', {}, "no row has a text of two tokens"),
    ],
)
def test_what_is_wrong_with_text_is_said(tmp_path, folder, content, language, words):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    with pytest.raises(CompressorError, match=words) as caught:
        read(path, **{"folder": language.get("tokenizer", folder), **without(language)})
    assert caught.value.next_step and caught.value.consequence


def without(language: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in language.items() if name != "tokenizer"}


def test_a_folder_without_a_tokenizer_is_no_empty_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    network("llama").save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="holds none"):
        read(tmp_path / "a.txt", tmp_path / "model")


def test_options_of_text_are_refused_for_other_data(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", inputs=np.zeros((4, 3), np.float32))
    with pytest.raises(UsageError, match="no files of text here"):
        load_data([str(tmp_path / "a.npz")], Reading(language=Language(length=32)))


# -- tables ----------------------------------------------------------------------------------------


ROWS = [{"text": "the cat sees bread", "text_pair": "music", "label": "LABEL_2"}, {
    "text": "nobody", "text_pair": "a red house", "label": "LABEL_0"}]  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_rows_are_filled_up_with_the_tokenizers_padding(tmp_path, folder, form):
    path = written(tmp_path / "rows.jsonl", *ROWS)
    if form == "csv":
        path = tmp_path / "rows.csv"
        lines = [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
        path.write_text("\n".join(lines) + "\n")
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "rows"
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    classes = {f"LABEL_{i}": i for i in range(3)}
    module = network("bert_classes", pad_token_id=0)
    data = read(path, folder, "bert_classes", classes=classes)
    assert data.is_filled and data.labelled
    data = data.bind(Binding(Forward.of(module), data.longest_sample))
    call, target = data.fetch([0, 1])
    assert target.tolist() == [2, 0]
    wanted = tokenizer()(
        [r["text"] for r in ROWS], [r["text_pair"] for r in ROWS], padding=True, return_tensors="pt"
    )
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert call.kwargs[name].equal(wanted[name]), name


def test_what_is_filled_in_is_the_padding_token_and_not_zero(tmp_path, folder):
    path = written(tmp_path / "rows", {"text": "the cat sees bread"}, {"text": "nobody"})
    data = read(path, folder)
    data.base[0].fillers["input_ids"] = 7
    data = data.bind(Binding(Forward.of(network("llama")), data.longest_sample))
    call, target = data.fetch([1])
    assert call.kwargs["input_ids"][0, -1] == 7 and not call.kwargs["attention_mask"][0, -1]
    assert target[0, -1] == -100


def test_labels_of_words_lie_at_their_first_tokens(tmp_path, folder):
    path = written(tmp_path / "rows", {"text": ["the", "cat."], "label": ["B", "A"], "id": 3})
    data = read(path, folder, "bert_words", classes={"A": 0, "B": 1})
    # [CLS] the cat . [SEP]
    assert data.fetch([0]).target.tolist() == [[-100, 1, 0, -100, -100]]
    assert "not used: id" in data.notes[0]
    written(path, {"text": ["the", "cat."], "label": ["B"]})
    with pytest.raises(UsageError, match="as many labels"):
        read(path, folder, "bert_words", classes={"A": 0, "B": 1})
    written(path, {"text": "the cat", "label": "C"})
    with pytest.raises(UsageError, match="'C' is no class of the network: A, B"):
        read(path, folder, "bert_classes", classes={"A": 0, "B": 1})


def test_files_in_sub_folders_are_samples_of_classes(tmp_path, folder):
    for name, text in (("pos/a", "the cat sees bread"), ("pos/b", "music"), ("neg/c", "nobody")):
        path = tmp_path / f"texts/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    data = read(tmp_path / "texts", folder, "bert_classes", classes={"pos": 2, "neg": 0})
    assert [data.fetch([i]).target.item() for i in range(3)] == [0, 2, 2]
    assert read(tmp_path / "texts", folder, length=8).first_sample.shapes.startswith("input_ids 1x")


# -- what outputs are for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("llama", T.CAUSAL),
        ("gpt2", T.CAUSAL),
        ("bert_masked", T.MASKED),
        ("bert_classes", T.CLASSES),
        ("bert_words", T.TOKENS),
        ("bert", T.EMBEDDINGS),
        ("t5", T.ENCODER_DECODER),
        ("vit", USUAL),  # what reads no text
    ],
)
def test_the_class_tells_the_task(kind, task):
    assert task_of(network(kind)) is task


def test_a_class_of_ones_own_has_the_task_of_what_it_inherits():
    parent = type(network("llama"))

    class Mine(parent):
        pass

    assert task_of(Mine(network("llama").config)) is T.CAUSAL
    assert task_of(nn.Linear(2, 2)) is USUAL


@pytest.mark.parametrize("kind", ["llama", "bert_masked"])
def test_loss_and_perplexity_are_those_of_the_library(kind):
    module, generator = network(kind, vocab_size=30), torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30, (6, 30), generator=generator)  # as long as the vocabulary
    target = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.5, -100)
    inputs = {"input_ids": ids}
    wanted = module(**inputs, labels=target).loss.detach()
    task = task_of(module)
    call = Call((), inputs)
    found = Objective(task=task)(module, call, target)
    torch.testing.assert_close(found.detach(), wanted)
    parts = [(call.map(lambda x: x[:4]), target[:4]), (call.map(lambda x: x[4:]), target[4:])]
    measure = Measure.named("perplexity", task)
    assert measure.all_of(module, parts)["perplexity"] == pytest.approx(math.exp(wanted), rel=1e-5)


def test_samples_of_ones_own_without_labels_are_to_be_continued():
    inputs = {"input_ids": torch.arange(4), "attention_mask": torch.tensor([1, 1, 1, 0])}
    assert T.CAUSAL.complete(inputs, None).tolist() == [0, 1, 2, -100]
    assert T.CAUSAL.complete(inputs, "given") == "given"
    assert T.MASKED.complete(inputs, None) is None


def test_hidden_tokens_are_the_same_each_time_and_never_special():
    hide = Hiding(mask=4, vocabulary=50, special=(0, 1, 2, 3, 4), seed=0)
    ids = torch.cat([torch.tensor([2]), torch.arange(5, 45), torch.tensor([3])])
    found, target = hide(ids, 0)
    again, _ = hide(ids, 0)
    other, _ = hide(ids, 1)
    assert found.equal(again) and not found.equal(other)
    chosen = target != -100
    assert chosen.sum() == 6 and not chosen[0] and not chosen[-1]
    assert target[chosen].equal(ids[chosen]) and found[~chosen].equal(ids[~chosen])
    count = sum(int((hide(ids, i)[0] == 4).sum()) for i in range(200)) / 200
    assert 0.75 * 6 < count < 0.85 * 6


class _Vectors(nn.Module):
    """Returns what it is given."""

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return x


def test_embeddings_are_compared_where_there_is_no_padding():
    torch.manual_seed(0)
    x, mask = torch.randn(5, 4, 8), torch.ones(5, 4).long()
    mask[:, 2:] = 0
    call = Call((), {"x": x, "attention_mask": mask})

    class Moved(_Vectors):
        def forward(self, x, attention_mask):
            return torch.where(attention_mask[..., None] == 1, x, 99.0)

    measure = Measure.named("embedding_shift", T.EMBEDDINGS)
    found = measure.all_of(Moved(), [(call, None)], original=_Vectors())
    assert found == {"embedding_shift": pytest.approx(0, abs=1e-9), "same_neighbour": 1.0}

    class Other(_Vectors):
        def forward(self, x, attention_mask):
            return x.flip(2)

    found = measure.all_of(Other(), [(call, None)], original=_Vectors())
    means = x[:, :2].mean(1)
    cosine = functional.cosine_similarity(means.flip(1), means).mean()
    assert found["embedding_shift"] == pytest.approx(1 - float(cosine), abs=1e-6)


# -- which way is better ---------------------------------------------------------------------------


def test_scales_say_what_is_lost_in_points():
    assert scale_of("perplexity").lost(20.0, 21.0) == pytest.approx(5)
    assert scale_of("embedding_shift").lost(0.0, 0.02) == pytest.approx(2)
    assert scale_of("top1").lost(0.9, 0.88) == pytest.approx(2)

    def own(outputs, target):
        return 0.0

    assert Measure.of_function("own", own).scale.better == HIGHER
    own.higher_is_better = False
    assert Measure.of_function("own", own).scale.better == LOWER


@pytest.mark.parametrize(("better", "epoch"), [(HIGHER, 2), (LOWER, 1)])
def test_the_best_epoch_is_the_one_with_the_better_metric(better, epoch):
    state = TrainingState(better=better)
    state.history = [
        EpochResult(n, 1, 1, 1, metric) for n, metric in ((1, 3.0), (2, 9.0), (3, 5.0))
    ]
    assert state.best_epoch == epoch
    assert TrainingState.from_dict(state.to_dict()).best_epoch == epoch


def test_names_of_metrics_can_be_asked_for():
    assert measure_named("perplexity", None).scale.better == LOWER
    assert measure_named(None, None).name == "top1"


# -- all of it -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    (path / "train.txt").write_text(toy_text(400, 1))
    (path / "test.txt").write_text(toy_text(60, 2))
    return path


@pytest.fixture(autouse=True)
def _briefly_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprints, "LATENCY_SECONDS", 0.02)


def compressed(spec: Path, texts: Path, **options: Any) -> compressor.Result:
    settings = {"length": 16, "ratio": 0.4, "format": (), "round_to": 1, "batch_size": 16}
    settings["search"] = 0
    data = {"data": str(texts / "train.txt"), "test": str(texts / "test.txt")}
    return compressor.compress(f"hf:{spec}", **{**data, **settings, **options})


def test_a_language_model_is_compressed_on_a_file_of_text(tmp_path, texts):
    spec = folder_of(tmp_path, "llama", num_hidden_layers=1)
    result = compressed(spec, texts, calibration=32)
    report = result.report
    assert report["lower_is_better"] == ["perplexity"]
    assert [list(step["metrics"]) for step in report["recovery"]] == [["perplexity"]] * 3
    assert {each["name"] for each in report["examples"]["inputs"]} == {
        "input_ids",
        "attention_mask",
    }
    assert any("windows of 16 tokens" in note for note in report["notes"])
    assert report["after"]["macs"] < 0.62 * report["before"]["macs"]
    ids = torch.randint(5, 40, (2, 9))
    assert result.module(input_ids=ids).logits.shape == (2, 9, VOCABULARY)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "bert_masked"])
@pytest.mark.parametrize("prune", [(), ("stream",)])
def test_repair_makes_up_for_what_was_cut(tmp_path, texts, kind, prune):
    """On a network that was trained for a moment: lower perplexity with repair than without."""
    steps = 600 if kind == "bert_masked" else 200  # it learns from few positions at a time
    train = train_on((texts / "train.txt").read_text(), steps)
    spec = folder_of(tmp_path, kind, train=train)
    found = {}
    for criterion, repair in (("l2", False), ("l2", True), ("auto", True)):
        result = compressed(spec, texts, criterion=criterion, repair=repair, prune=prune)
        report = result.report
        found[criterion, repair] = report["after"]["metrics"]["perplexity"]
        found["original"] = report["before"]["metrics"]["perplexity"]
    assert found["original"] < 0.8 * VOCABULARY
    assert found["l2", True] < found["l2", False]
    assert found["auto", True] < found["l2", False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "metric"),
    [("bert", "embedding_shift"), ("t5", "fidelity"), ("bert_classes", "fidelity")],
)
def test_networks_without_targets_are_compared_with_the_original(tmp_path, texts, kind, metric):
    spec = folder_of(tmp_path, kind)
    result = compressed(spec, texts, calibration=64)
    steps = [step["metrics"][metric] for step in result.report["recovery"]]
    scale = scale_of(metric)
    assert scale.lost(steps[0], steps[-1]) < scale.lost(steps[0], steps[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_training_makes_up_for_what_was_cut(tmp_path, texts, kind):
    """By next tokens and the original's outputs, or by these alone."""
    train = train_on((texts / "train.txt").read_text(), 200) if kind == "llama" else None
    spec = folder_of(tmp_path, kind, train=train)
    report = compressed(spec, texts, repair=False, criterion="l2", epochs=4, lr=3e-3).report
    metric, values = next(iter(report["after"]["metrics"])), report["recovery"]
    sliced, trained = (step["metrics"][metric] for step in values[1:])
    assert trained < sliced
    training = values[-1]["training"]
    least = min(training["epochs"], key=lambda epoch: epoch["metric"])
    assert training["best_epoch"] == least["epoch"]


@pytest.mark.slow
def test_the_drop_that_is_allowed_is_one_of_perplexity(tmp_path, texts):
    spec = folder_of(tmp_path, "llama", train=train_on((texts / "train.txt").read_text(), 200))
    result = compressed(spec, texts, ratio=None, max_drop=5.0, calibration=64)
    floor = result.report["budget"]["accuracy_floor"]
    for trial in floor["trials"]:
        assert trial["drop"] == pytest.approx(100 * (trial["metric"] / floor["whole"] - 1))
        assert trial["is_within"] == (trial["drop"] <= 5.0)
    assert any(trial["is_within"] for trial in floor["trials"])
