"""Recordings: what of them arrives, in which pieces, and what is refused."""

from __future__ import annotations

import sys
import wave

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import nn

from compressor.calls import Call
from compressor.errors import CompressorError, UsageError
from compressor.loading.data import Reading, hold_out, load_data
from compressor.loading.data.audio_files import open_recording
from compressor.options import DataOptions, ScoringOptions
from compressor.run.loaded import open_model
from compressor.run.samples import open_inputs
from compressor.run.subject import Subject


def tone(frames=800, rate=8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(frames) / rate)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, values=None, rate=8000):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.round(tone() * 32767).astype(np.int16) if values is None else values
        wavfile.write(name, rate, values)
        return name

    return make


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        (np.round(tone() * 127 + 128).astype(np.uint8), 1 / 100),
        (np.round(tone() * 2**31).astype(np.int32), 1e-6),
        (tone().astype(np.float32), 1e-6),
        (np.stack([2 * tone(), np.zeros(800)], 1), 1e-6),
    ],
)
def test_every_width_of_sample_and_both_channels_are_one_row(write, values, tolerance):
    (x,) = load_data([write("a.wav", values)]).first_sample.args
    assert x.shape == (1, 1, 800) and x.dtype == torch.float32
    np.testing.assert_allclose(x[0, 0], tone(), atol=tolerance)


def test_24_bits_are_read(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 3, 8000, 0, "NONE", ""))
        whole = np.round(tone() * 2**31).astype("<i4")
        file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())
    x = load_data([str(path)]).first_sample.args[0]
    np.testing.assert_allclose(x[0, 0], tone(), atol=1e-6)


def test_pieces_of_a_resampled_recording_are_what_they_are_within_the_whole(write):
    noise = np.random.default_rng(0).normal(size=4410).astype(np.float32)
    data = load_data([write("a.wav", noise, 44100)], Reading(sample_rate=16000, window=0.025))
    whole = resample_poly(noise, 160, 441)
    pieces = torch.cat([data.fetch([i]).inputs.args[0].flatten() for i in range(len(data))])
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    assert data.notes == (
        "a.wav: 1 recordings of 44100 Hz, resampled to 16000 Hz, as 4 pieces of 0.025 s (400 "
        "samples)",
    )


def test_a_last_piece_is_filled_up_if_half_of_it_is_there(write):
    write("set/a.wav", np.ones(250, np.float32))
    write("set/b.wav", np.ones(240, np.float32))
    write("set/c.wav", np.ones(20, np.float32))
    data = load_data(["set"], Reading(window=0.0125))
    assert [float(x.sum()) for x, _ in map(data.dataset.__getitem__, range(len(data)))] == [
        *(100, 100, 50),
        *(100, 100),
        20,
    ]


def test_sub_folders_are_classes_and_pieces_of_a_recording_stay_together(write):
    for name in ("10/a", "10/b", "9/c", "9/d"):
        write(f"set/{name}.wav")
    data = load_data(["set"], Reading(window=0.01))
    assert (data.classes, data.fetch([0, 39]).target.tolist()) == (11, [10, 9])
    for seed in range(5):
        rest, held = hold_out(data, 0.1, seed)
        sources = [{data.dataset.sources[i] for i in part.dataset.indices} for part in (rest, held)]
        assert len(held) == 10 and not sources[0] & sources[1]
    assert len(hold_out(load_data(["set/9/c.wav"], Reading(window=0.01)))[1]) == 1


@pytest.mark.parametrize("shape", [(1, 1, 400), (1, 400), (1, 400, 1)])
def test_pieces_are_as_long_and_shaped_as_the_example_input(write, shape):
    data = load_data([write("a.wav")], Reading(like=Call((torch.zeros(shape),))))
    assert data.first_sample.args[0].shape == shape


def test_the_shape_that_the_network_takes_is_tried(write):
    class Flat(nn.Module):
        def forward(self, x):
            samples, length = x.shape
            return x.reshape(samples, length // 8, 8).mean(1)

    options = ScoringOptions(data=(write("a.wav"), write("b.wav")))
    loaded = open_model(Flat().eval(), options)
    examples, samples = open_inputs(loaded, Subject(loaded.module), options)
    assert examples.args[0].shape == (1, 800) and len(samples.train) + len(samples.test) == 2


BAD = {
    "different sample rates": (["a.wav", "other.wav"], {}),
    "2 different lengths, 0.05 to 0.1 s": (["a.wav", "short.wav"], {}),
    "less than a sample": (["a.wav"], {"window": 1e-9}),
    "example input is 1x80x100": (["a.wav"], {"like": Call((torch.zeros(1, 80, 100),))}),
    "accepts neither 1x1x800 nor": (["a.wav"], {"accepts": lambda call: False}),
    "no images here": (["a.wav"], {"mean": [0.5]}),
    "it is empty": (["empty.wav"], {}),
    "not a readable recording": (["cut.wav"], {}),
    "not finite": (["nan.wav"], {}),
    "several kinds": (["mixed"], {}),
    "loose.wav do not": (["set"], {}),
    r"not installed[\s\S]*compressor\[audio\]": (["a.flac"], {}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_recording_for_the_network_is_a_clear_error(
    write, tmp_path, monkeypatch, message
):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    write("a.wav")
    write("other.wav", rate=16000)
    write("short.wav", np.zeros(400, np.int16))
    write("empty.wav", np.zeros(0, np.int16))
    write("nan.wav", np.full(10, np.nan, np.float32))
    write("mixed/a.wav")
    np.save("mixed/a.npy", np.zeros(3))
    write("set/class/a.wav")
    write("set/loose.wav")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:30])
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(60))
    specs, reading = BAD[message]
    with pytest.raises(CompressorError, match=message):
        load_data(specs, Reading(**reading)).fetch([0])


def test_options_of_recordings_have_to_be_positive():
    for wrong in ({"sample_rate": 0}, {"window": 0.0}, {"window": float("nan")}):
        with pytest.raises(UsageError):
            DataOptions(**wrong)


def test_other_files_are_read_by_soundfile(tmp_path, monkeypatch):
    class SoundFile:
        @staticmethod
        def info(path):
            return type("Info", (), {"samplerate": 8000, "frames": 800})

        @staticmethod
        def read(path, start, stop, dtype):
            return tone().astype(dtype)[start:stop], 8000

    monkeypatch.setitem(sys.modules, "soundfile", SoundFile)
    (tmp_path / "a.ogg").write_bytes(b"OggS" + bytes(60))
    recording = open_recording(tmp_path / "a.ogg")
    np.testing.assert_allclose(
        recording.piece(790, 20, 8000), [*tone()[790:], *[0] * 10], atol=1e-6
    )
