"""Every form of data, its normalisation, its batches, and what is refused."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.graph.trace import trace
from compressor.loading.callables import function
from compressor.loading.data import Data, Reading, batches, check_labels, hold_out, load_data
from compressor.options import Options
from compressor.records import ExampleInputs
from compressor.score.data import CalibrationBatches

MEAN, STD = (
    torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
UNIT = Reading(mean=[0], std=[1 / 255])


def sized(*sizes) -> Reading:
    """For a network whose images have this height and width."""
    return Reading(like=Call((torch.zeros(1, 3, *sizes),)))


def images(count=20, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def npz(tmp_path):
    def write(name="data.npz", **arrays):
        path = tmp_path / name
        np.savez(path, **arrays)
        return str(path)

    return write


@pytest.fixture
def numbered(npz):
    """Twenty samples whose every pixel, and label, is their number."""
    pixels = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None], (20, 8, 8))
    return load_data([npz(images=pixels, labels=np.arange(20))], UNIT)


def numbers(source) -> list[int]:
    """Which samples the batches hold, by their pixels."""
    return [round(float(image.max())) for call, _ in source for image in call.args[0]]


# arrays


def test_arrays_are_normalised_as_imagenet(npz):
    pixels, labels = images(), np.arange(20, dtype=np.uint8) % 7
    data = load_data([npz(images=pixels, labels=labels)])
    (call, target), *rest = batches(data, 16)
    (x,) = call.args
    wanted = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - MEAN) / STD
    torch.testing.assert_close(x, wanted[:16])
    assert x.is_contiguous() and x.dtype == torch.float32
    assert target.tolist() == labels[:16].tolist() and target.dtype == torch.int64
    assert [len(y) for _, y in rest] == [4]
    assert (len(data), data.labelled, data.classes, data.name) == (20, True, 7, "data.npz")
    torch.testing.assert_close(data.first_sample.args[0], wanted[:1])
    sample, label = data.dataset[3]
    torch.testing.assert_close(sample, wanted[3])
    assert label == 3


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_grey_arrays_have_one_channel_around_zero(npz, shape):
    pixels = images(shape=shape)
    x = load_data([npz(images=pixels)]).first_sample.args[0]
    torch.testing.assert_close(x[0, 0], torch.from_numpy(pixels[0].reshape(8, 8)) / 127.5 - 1)


def test_own_mean_and_std_for_each_or_all_channels(npz):
    path = npz(images=images(shape=(4, 4, 2)))
    each = load_data([path], Reading(mean=[0.1, 0.2], std=[0.3, 0.4])).first_sample.args[0]
    both = load_data([path], Reading(mean=[0.1], std=[0.3])).first_sample.args[0]
    torch.testing.assert_close(each[:, 0], both[:, 0])
    assert not torch.allclose(each[:, 1], both[:, 1])


def test_unlabelled_arrays_give_no_target(npz):
    data = load_data([npz(images=images())])
    assert (data.labelled, data.classes) == (False, None)
    assert all(target is None for _, target in batches(data, 8))
    assert data.dataset[0][1] is None


def test_several_and_lzma_compressed_files_are_one(npz, tmp_path):
    first = npz("a.npz", images=images(seed=1), labels=np.zeros(20, int))
    plain = npz("b.npz", images=images(seed=2), labels=np.ones(20, int))
    packed = tmp_path / "packed.npz"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    data = load_data([first, str(packed)])
    assert len(data) == 40 and data.classes == 2
    assert data.fetch([19, 20]).target.tolist() == [0, 1]
    separate = load_data([plain]).first_sample.args[0]
    torch.testing.assert_close(data.fetch([20]).inputs.args[0], separate)


def test_the_content_decides_not_the_extension(npz, tmp_path):
    path = tmp_path / "weird.jpg"
    path.write_bytes((tmp_path / npz(images=images())).read_bytes())
    assert len(load_data([str(path)])) == 20


def test_ten_thousand_small_images_are_cheap(npz):
    data = load_data([npz(images=images(10_000, (32, 32, 3)), labels=np.zeros(10_000, int))])
    assert data.dataset.images.dtype == np.uint8
    start = time.perf_counter()
    assert sum(len(y) for _, y in batches(data, 256)) == 10_000
    assert time.perf_counter() - start < 3


BAD_ARRAYS = {
    "no array is an input of the network: it holds labels": {"labels": np.zeros(20, int)},
    r"there is no sample: images is uint8 of shape \(0, 8": {"images": images(0)},
    "20 images but 19 labels": {"images": images(), "labels": np.zeros(19, int)},
    "images holds Python objects": {"images": np.array([{}], dtype=object)},
    "inputs holds <U1, and no numbers": {"inputs": np.array(["a", "b"])},
    "inputs is a single number": {"inputs": np.float32(3)},
    "inputs holds nan in sample 1": {"inputs": np.array([[1.0], [np.nan]])},
    "inputs holds inf in sample 0": {"inputs": np.array([[1e300], [1.0]])},
    "beyond 64-bit integers": {"ids": np.array([2**64 - 1], np.uint64)},
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_bad_arrays_are_clear_errors(npz, message):
    path = npz(**BAD_ARRAYS[message])
    with pytest.raises(CompressorError, match=message) as caught:
        load_data([path])
    assert path in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_files_that_are_no_archive_are_clear_errors(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(CompressorError, match=r"not a readable \.npz") as caught:
        load_data([str(path)])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("rows.csv", "a text file"), ("own.py", r"a Python file[\s\S]*own\.py:name")],
)
def test_other_files_are_told_what_data_is(tmp_path, name, words):
    path = tmp_path / name
    path.write_text("1,2,3\n4,5,6\n")
    with pytest.raises(UsageError, match=words) as caught:
        load_data([str(path)])
    assert "pickle" not in str(caught.value)


def test_truncated_files_are_clear_errors(npz, tmp_path):
    whole = tmp_path / npz(images=images(), labels=np.zeros(20, int))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:1000])
    np.save(tmp_path / "one.npy", images())
    single = tmp_path / "single.npy"
    single.write_bytes((tmp_path / "one.npy").read_bytes()[:1000])
    for path in (cut, single):
        with pytest.raises(CompressorError, match=r"not a readable \.np[zy]"):
            load_data([str(path)])


def test_files_that_do_not_go_together_are_clear_errors(npz):
    first = npz("a.npz", images=images(), labels=np.zeros(20, int))
    for name, other in (
        ("size.npz", {"images": images(shape=(9, 8, 3)), "labels": np.zeros(20, int)}),
        ("labels.npz", {"images": images()}),
    ):
        with pytest.raises(CompressorError, match="do not go together") as caught:
            load_data([first, npz(name, **other)])
        assert name in str(caught.value)


def test_bad_statistics_are_usage_errors(npz):
    path = npz(images=images())
    with pytest.raises(UsageError, match="mean has 2 values, the images have 3"):
        load_data([path], Reading(mean=[0.1, 0.2]))
    with pytest.raises(UsageError, match="std must be above zero"):
        load_data([path], Reading(std=[0.0]))


def test_specs_that_are_not_there_are_usage_errors(npz, tmp_path):
    with pytest.raises(UsageError, match="no data"):
        load_data([])
    with pytest.raises(UsageError, match="no data at"):
        load_data([str(tmp_path / "nothing.npz")])
    with pytest.raises(UsageError, match=r"only be \.npz") as caught:
        load_data([npz(images=images()), "gone.npz"])
    assert "gone.npz" in str(caught.value)


# folders


@pytest.fixture
def folder(tmp_path):
    def write(*names):
        root = tmp_path / "pictures"
        for shade, name in enumerate(names):
            (root / name).mkdir(parents=True)
            for number in range(2):
                grey = np.full((40, 60, 3), 50 * shade, np.uint8)
                grey[:, :5] = grey[:, -5:] = 255  # the margin, which the crop must remove
                Image.fromarray(grey).save(root / name / f"{number}.png")
        return root

    return write


def test_a_folder_is_resized_cropped_and_labelled_by_its_sub_folders(folder):
    data = load_data([str(folder("bird", "cat", "dog"))], sized(28, 28))
    (call, target), *_ = batches(data, 6)
    (x,) = call.args
    assert target.tolist() == [0, 0, 1, 1, 2, 2]
    assert x.shape == (6, 3, 28, 28)
    assert (data.classes, data.labelled, data.name) == (3, True, "pictures")
    wanted = (50 / 255 - MEAN) / STD
    torch.testing.assert_close(x[2:3], wanted.expand(1, 3, 28, 28))


def test_a_folder_for_an_oblong_input(folder):
    data = load_data([str(folder("a"))], sized(20, 28))
    assert data.first_sample.args[0].shape == (1, 3, 20, 28)


def test_a_folder_in_grey(folder):
    x = load_data([str(folder("a"))], Reading(mean=[0.5], std=[0.5])).first_sample.args[0]
    assert x.shape == (1, 1, 224, 224)
    torch.testing.assert_close(x, torch.full_like(x, -1.0))


def test_sub_folders_named_by_numbers_are_those_classes(folder):
    data = load_data([str(folder("10", "9", "200"))])
    (_, target), *_ = batches(data, 6)
    assert target.tolist() == [10, 10, 200, 200, 9, 9]
    assert data.classes == 201


def test_a_flat_folder_of_images_has_no_labels(folder):
    root = folder("a")
    data = load_data([str(root / "a")], sized(28, 28))
    (call, target), *_ = batches(data, 6)
    assert (target, data.labelled, data.classes, len(data)) == (None, False, None, 2)
    labelled = load_data([str(root)], sized(28, 28))
    assert torch.equal(call.args[0], next(iter(batches(labelled, 6)))[0].args[0])


def test_folders_of_classes_are_whole_or_none(folder):
    root = folder("a", "b")
    Image.new("RGB", (8, 8)).save(root / "loose.png")
    with pytest.raises(UsageError, match=r"images lie in sub-folders.* and loose.png do not"):
        load_data([str(root)])
    (root / "loose.png").unlink()
    (root / "c").mkdir()
    with pytest.raises(CompressorError, match="no images in c"):
        load_data([str(root)])


def test_a_corrupt_image_is_named(folder):
    root = folder("a", "b")
    bad = root / "b" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    data = load_data([str(root)])
    with pytest.raises(CompressorError, match="not a readable image") as caught:
        list(batches(data, 4))
    assert str(bad) in str(caught.value)


def test_folders_without_images_are_clear_errors(tmp_path):
    with pytest.raises(CompressorError, match="holds no images"):
        load_data([str(tmp_path)])
    (tmp_path / "class").mkdir()
    with pytest.raises(CompressorError, match="holds no images"):
        load_data([str(tmp_path)])


# callables


CODE = """
import torch
from torch.utils.data import TensorDataset

def pairs(): return TensorDataset(torch.randn(10, 4), torch.arange(10))
def two_inputs(): return [((torch.full((3,), i), torch.ones(2)), i) for i in range(5)]
def unlabelled(): return [(torch.randn(3), None) for _ in range(4)]
def single(): return [torch.randn(3) for _ in range(4)]
def named(): return [({"x": torch.randn(3)}, 0) for _ in range(4)]
def tokens(): return [{"ids": [1, 2, 3], "labels": i} for i in range(4)]
def real(): return [(torch.randn(3), float(i)) for i in range(4)]
def three(): return [(torch.randn(3), torch.randn(3), 0) for _ in range(4)]
def texts(): return ["a", "b"]
def ragged(): return [(torch.randn(3 + i), 0) for i in range(4)]
def empty(): return []
def number(): return 3
def wants(argument): return []
def raises(): raise OSError("disk gone")
class Late:
    def __len__(self): return 4
    def __getitem__(self, i):
        if i == 2: raise ValueError("sample lost")
        return torch.zeros(2), 0
constant = 3
ready = TensorDataset(torch.randn(10, 4), torch.arange(10))
samples = [(torch.randn(3), i) for i in range(5)]
columns = {"x": torch.randn(6, 4), "labels": list(range(6))}
uneven = {"x": torch.randn(6, 4), "labels": [1]}
loader = torch.utils.data.DataLoader(ready)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "someones_data.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return "someones_data.py:"


def test_a_callable_in_a_file_or_module_gives_its_dataset(code):
    for spec in (f"{code}pairs", "someones_data:pairs"):
        data = load_data([spec])
        (call, target), *_ = batches(data, 4)
        (x,) = call.args
        assert x.shape == (4, 4) and target.tolist() == [0, 1, 2, 3]
        assert (len(data), data.labelled, data.classes) == (10, True, None)


def test_a_dataset_may_have_several_inputs_or_no_target(code):
    data = load_data([f"{code}two_inputs"])
    assert [tuple(x.shape) for x in data.first_sample.args] == [(1, 3), (1, 2)]
    assert not load_data([f"{code}unlabelled"]).labelled
    assert not load_data([f"{code}single"]).labelled


def test_a_sample_may_be_a_dict_and_its_target_lie_in_it(code):
    data = load_data([f"{code}tokens"])
    call, target = data.fetch([1, 2])
    assert call.kwargs["ids"].tolist() == [[1, 2, 3]] * 2 and target.tolist() == [1, 2]
    assert data.labelled and list(call.kwargs) == ["ids"]
    assert load_data([f"{code}named"]).first_sample.kwargs["x"].shape == (1, 3)
    assert load_data([f"{code}real"]).fetch([0, 1]).target.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [("ready", 10, 4), ("samples", 5, 3), ("columns", 6, 4), ("loader", 10, 4)],
)
def test_an_object_that_is_ready_is_data(code, name, size, width):
    data = load_data([code + name])
    call, target = data.fetch([1, 2])
    (x,) = (*call.args, *call.kwargs.values())
    assert (len(data), data.labelled, tuple(x.shape)) == (size, True, (2, width))
    assert target.tolist() == [1, 2]


def test_a_loss_may_be_a_function_a_class_or_an_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("losses.py").write_text(
        "import torch\nloss = torch.nn.L1Loss()\nscale = 3\n"
        "class Own:\n    def __init__(self, needed): pass\n    def __call__(self, a, b): pass\n"
    )
    for spec in ("losses.py:loss", "torch.nn:L1Loss", "torch.nn.functional:l1_loss"):
        assert function(spec)(torch.ones(3), torch.zeros(3)) == 1
    with pytest.raises(UsageError, match="scale is a int, and cannot be called"):
        function("losses.py:scale")
    with pytest.raises(UsageError, match=r"making one failed: TypeError[\s\S]*needed"):
        function("losses.py:Own")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", r"3 parts[\s\S]*\(first, second\), target"),
        ("texts", "a sample is a str"),
        ("empty", "empty"),
        ("number", "a int is no dataset"),
        ("wants", "raised TypeError"),
        ("raises", "raised OSError: disk gone"),
        ("constant", "a int is no dataset"),
        ("uneven", "these are: x 6, labels 1"),
        ("missing", r"nothing named 'missing'[\s\S]*columns"),
    ],
)
def test_callables_that_give_no_dataset_are_clear_errors(code, name, message):
    with pytest.raises(CompressorError, match=message) as caught:
        load_data([code + name])
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("ragged", r"3, then 4[\s\S]*samples 0 to 3"), ("Late", "sample lost")]
)
def test_datasets_that_fail_later_are_clear_errors(code, name, message):
    with pytest.raises(CompressorError, match=message):
        list(batches(load_data([code + name]), 4))


def test_bad_specs_are_clear_errors(code, tmp_path):
    (tmp_path / "broken_code.py").write_text("1 / 0")
    for spec, message in (
        ("gone.py:f", "no file gone.py"),
        ("no_such_package.data:f", "no module"),
        ("a:not-a-name", "names nothing in a module"),
        ("broken_code.py:f", "ZeroDivisionError"),
        ("broken_code:f", "ZeroDivisionError"),
    ):
        with pytest.raises(CompressorError, match=message):
            load_data([spec])
    with pytest.raises(UsageError, match="taken as it comes"):
        load_data([f"{code}pairs"], Reading(mean=[0.5]))


# splits, labels, batches


def test_hold_out_is_disjoint_complete_and_reproducible(numbered):
    rest, held = hold_out(numbered, 0.25, seed=3)
    assert (len(rest), len(held)) == (15, 5)
    assert sorted(numbers(batches(rest, 8)) + numbers(batches(held, 8))) == list(range(20))
    assert numbers(batches(hold_out(numbered, 0.25, seed=3)[1], 8)) == numbers(batches(held, 8))
    assert numbers(batches(hold_out(numbered, 0.25, seed=4)[1], 8)) != numbers(batches(held, 8))
    assert "held out" in held.name and held.labelled and held.classes == 20


def test_hold_out_keeps_a_sample_on_each_side(npz):
    two = load_data([npz(images=images(2))])
    assert [len(part) for part in hold_out(two, 0.01)] == [1, 1]
    assert [len(part) for part in hold_out(two, 0.99)] == [1, 1]
    with pytest.raises(CompressorError, match="one sample"):
        hold_out(load_data([npz(images=images(1))]))
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out(two, 1.0)


def test_labels_are_checked_against_the_network(numbered, npz, code):
    check_labels(numbered, 20)
    with pytest.raises(CompressorError, match="label of sample 19 is 19, but the network has 19"):
        check_labels(numbered, 19)
    _, held = hold_out(numbered)
    with pytest.raises(CompressorError, match="label of sample 0 is"):
        check_labels(held, 0)
    with pytest.raises(CompressorError, match="label of sample 4 is 4"):
        check_labels(load_data([f"{code}pairs"]), 4)
    check_labels(load_data([npz(images=images())]), 1)


def test_batches_in_order(numbered):
    source = batches(numbered, 8)
    assert len(source) == 3
    assert numbers(source) == numbers(source) == list(range(20))
    assert [len(y) for _, y in batches(numbered, 8, drop_last=True)] == [8, 8]
    assert [len(y) for _, y in batches(numbered, 50, drop_last=True)] == [20]
    assert numbers(batches(numbered, 8, limit=10)) == list(range(10))
    assert len(batches(numbered, 8, limit=10)) == 2


def test_batches_shuffle_anew_in_every_pass_and_the_same_for_the_same_seed(numbered):
    some, same, other = (batches(numbered, 8, seed=seed) for seed in (1, 1, 2))
    first, second = numbers(some), numbers(some)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert [numbers(same), numbers(same)] == [first, second]
    assert numbers(other) != first


def test_a_limit_with_a_seed_is_one_random_choice(numbered):
    source = batches(numbered, 4, seed=1, limit=6)
    first = numbers(source)
    assert sorted(first) == sorted(numbers(source)) != list(range(6))
    assert len(set(first)) == 6


def test_targets_stay_with_their_samples(numbered):
    for call, target in batches(numbered, 8, seed=1, augment="crop-flip"):
        assert torch.equal(call.args[0].amax((1, 2, 3)).round().long(), target)


def test_calibration_looks_at_changed_copies_beside_the_images(npz):
    data = load_data([npz(images=images(12, (16, 16, 3)), labels=np.arange(12))])
    traced = trace(nn.Conv2d(3, 2, 3), ExampleInputs((torch.rand(2, 3, 16, 16),)))

    def seen(augment):
        options = Options(batch_size=4, augment=augment)
        return [call.args[0] for call, _ in CalibrationBatches(traced, data, options).batches()]

    plain, both = seen("none"), seen("crop-flip")
    assert (len(plain), len(both)) == (3, 6)
    assert all(map(torch.equal, plain, both))
    originals = list(torch.cat(plain))
    copies = list(torch.cat(both[3:]))
    assert sum(any(torch.equal(x, y) for y in originals) for x in copies) <= 2
    assert all(map(torch.equal, both, seen("crop-flip")))


@pytest.mark.parametrize("augment", ["crop", "crop-flip"])
def test_augmentation_moves_and_mirrors_and_is_reproducible(npz, augment):
    ramp = np.tile(np.arange(100, 132, dtype=np.uint8), (64, 32, 1))  # columns are 100..131
    data = load_data([npz(images=ramp)], Reading(mean=[0], std=[1 / 255]))
    seen = set()
    for call, _ in batches(data, 32, seed=1, augment=augment):
        for image in call.args[0][:, 0]:
            row = image[16].round().int().tolist()
            shown = [value for value in row if value]
            mirrored = shown[0] > shown[-1]
            shown = shown[::-1] if mirrored else shown
            assert shown == list(range(shown[0], shown[0] + len(shown)))
            assert len(shown) >= 28
            seen.add((mirrored, shown[0] - 100, len(shown)))
    assert len({entry[1:] for entry in seen}) > 5
    assert {entry[0] for entry in seen} == ({False, True} if augment == "crop-flip" else {False})
    again = [batches(data, 32, seed=1, augment=augment) for _ in range(2)]
    some, same = ([call.args[0] for call, _ in one] for one in again)
    assert all(torch.equal(a, b) for a, b in zip(some, same, strict=True))


def test_batches_refuse_what_they_cannot_do(numbered, code):
    with pytest.raises(UsageError, match="no augmentation 'rotate'"):
        batches(numbered, 8, augment="rotate")
    with pytest.raises(UsageError, match="at least one"):
        batches(numbered, 0)
    with pytest.raises(UsageError, match="at least one"):
        batches(numbered, 8, limit=0)
    with pytest.raises(UsageError, match="moves images"):
        batches(load_data([f"{code}pairs"]), 8, augment="crop")


# batches that are made on a device


@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
def test_batches_made_on_a_device_are_the_same(npz, augment):
    data = load_data([npz(images=images(50, (16, 16, 3)), labels=np.arange(50))])
    rest, _ = hold_out(data)
    usual, there = (batches(rest, 8, seed=3, augment=augment) for _ in range(2))
    placed = there.on(torch.device("cpu"))
    assert placed.device is not None
    for _ in range(2):
        for (call, target), (same, labels) in zip(usual, placed, strict=True):
            assert torch.equal(call.args[0], same.args[0])
            assert torch.equal(target, labels)


def test_what_cannot_lie_on_a_device_stays_where_it_is():
    dataset = [(torch.randn(3, 8, 8), 0) for _ in range(4)]
    usual = batches(Data("own", dataset, labelled=True, classes=2), 2)
    assert usual.on(torch.device("cpu")) is usual
