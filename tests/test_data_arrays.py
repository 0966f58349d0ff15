"""Arrays of any numbers: which are inputs, in which types they arrive, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.loading.data import Binding, Forward, Reading, check_labels, load_data


class Two(nn.Module):
    def forward(self, ids, mask):
        return ids * mask


def reading(module, **more) -> Reading:
    return Reading(binding=Binding(Forward.of(module)), **more)


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, *single, **arrays):
        np.save(name, single[0]) if single else np.savez(name, **arrays)
        return name

    return write


NUMBERS = np.arange(24).reshape(4, 6)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (NUMBERS.astype(">f8"), torch.float32),
        (np.asfortranarray(NUMBERS.astype(np.float16)), torch.float32),
        (NUMBERS.astype(np.complex128), torch.complex64),
        (NUMBERS.astype(">i2"), torch.int64),
        (NUMBERS.astype(np.uint32), torch.int64),
        (NUMBERS > 3, torch.bool),
    ],
)
def test_numbers_of_any_kind_arrive_in_the_type_that_networks_take(save, array, wanted):
    for name in (save("anything.npz", anything=array), save("anything.npy", array)):
        (x,) = load_data([name]).fetch([2, 0]).inputs.args
        assert x.dtype == wanted and x.is_contiguous()
        assert x.tolist() == array[[2, 0]].tolist()


def test_inputs_go_by_the_names_of_the_network_and_the_rest_is_said(save):
    save("two.npz", mask=NUMBERS, ids=NUMBERS, names=np.array(["a"]), targets=NUMBERS[:, :1] / 2)
    data = load_data(["two.npz"], reading(Two()))
    call, target = data.fetch([1, 2])
    assert list(call.kwargs) == ["mask", "ids"] and target.dtype == torch.float32
    assert data.notes == ("of two.npz the network is not given names",)
    assert target.tolist() == [[3.0], [6.0]]


def test_inputs_get_the_types_of_the_example_inputs(save):
    save("two.npz", ids=NUMBERS, mask=NUMBERS / 2)
    examples = Call((), {"ids": torch.zeros(1, 6), "mask": torch.zeros(1, 6, dtype=torch.int64)})
    data = load_data(["two.npz"], reading(Two())).bind(Binding(Forward.of(Two()), examples))
    kinds = {name: x.dtype for name, x in data.first_sample.kwargs.items()}
    assert kinds == {"ids": torch.float32, "mask": torch.float32}  # halves are not cut off


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": NUMBERS}, "takes mask, and there is no array"),
        ({"a": NUMBERS, "b": NUMBERS}, r"holds a, b[\s\S]*names its inputs \(ids, mask\)"),
        ({"ids": NUMBERS, "mask": NUMBERS[:3]}, "4 ids but 3 mask"),
    ],
)
def test_arrays_that_do_not_fit_the_network_are_clear_errors(save, arrays, message):
    with pytest.raises(CompressorError, match=message):
        load_data([save("two.npz", **arrays)], reading(Two()))


def test_files_of_single_arrays_are_named_by_their_names_and_joined(save):
    for part in (1, 2):
        save(f"X_train{part}.npy", NUMBERS.astype(np.float32))
        save(f"train_y-{part}.npy", np.arange(4))
    files = ["X_train1.npy", "X_train2.npy", "train_y-1.npy", "train_y-2.npy"]
    data = load_data(files, reading(nn.Linear(6, 2)))
    call, target = data.fetch([5, 0])
    assert len(data) == 8 and target.tolist() == [1, 0]
    assert call.args[0].tolist() == NUMBERS[[1, 0]].tolist()
    assert isinstance(data.dataset.inputs.parts[0], np.memmap)
    check_labels(data, 4)
    with pytest.raises(CompressorError, match="label of sample 2 is 2"):
        check_labels(data, 2)
    save("clean.npy", NUMBERS[:, :2])
    with pytest.raises(CompressorError, match="inputs is float32 of shape"):
        load_data(["X_train1.npy", "clean.npy"])


def test_a_folder_of_arrays_is_named_by_its_files(save, tmp_path):
    (tmp_path / "set" / "deeper").mkdir(parents=True)
    save("set/val_ids.npy", NUMBERS)
    save("set/mask.npy", NUMBERS)
    save("set/labels.npy", np.arange(4) > 1)
    call, target = load_data(["set"], reading(Two())).fetch([3])
    assert sorted(call.kwargs) == ["ids", "mask"] and target.tolist() == [1]
    save("set/deeper/ids.npy", NUMBERS)
    with pytest.raises(UsageError, match="sub-folders, such as"):
        load_data(["set"], reading(Two()))


def test_images_are_uint8_and_other_numbers_are_taken_as_they_are(save):
    save("images.npy", np.full((3, 8, 8, 3), 255, np.uint8))
    x = load_data(["images.npy"], Reading(mean=[0.5], std=[0.5])).first_sample.args[0]
    assert x.shape == (1, 3, 8, 8) and x.unique().item() == 1
    save("real.npz", images=np.ones((3, 3, 8, 8)), labels=np.ones(3))
    assert load_data(["real.npz"]).first_sample.args[0].unique().item() == 1
    with pytest.raises(UsageError, match="--mean normalise uint8 images; images, float64"):
        load_data(["real.npz"], Reading(mean=[0.5]))


def test_numbers_that_are_not_finite_are_found_on_disk_when_they_are_read(save):
    save("inputs.npy", np.array([[0.0, -np.inf], [np.nan, 1.0]]))
    data = load_data(["inputs.npy"])
    assert data.fetch([0]).inputs.args[0].isneginf().any()  # as in masks that are added to scores
    with pytest.raises(CompressorError, match=r"holds nan in sample 1[\s\S]*inputs\.npy"):
        data.fetch([0, 1])
