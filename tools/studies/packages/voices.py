"""A voice encoder that a package carries, and speech of another one, as spectrograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compressor.loading.data.audio_files import open_recording
from tools.studies.packages.carried import Carried

ENCODER = Carried("Resemblyzer", "resemblyzer", "pretrained.pt", writer="PyTorch")
SPEECH = Carried("pytest-audioeval", "pytest_audioeval", "samples/audio/en/counting.wav", "hand")
CALIBRATED, JUDGED = ("en", "es", "fr", "hi", "it", "ja"), ("pl", "pt", "zh")
"""Languages of the samples: what is calibrated on, and what is judged on."""

RATE, MELS, FRAMES, FFT, HOP = 16_000, 40, 160, 400, 160
"""Samples per second; bands of a frame; frames of a window; samples of a frame, and from frame to
frame, as the encoder was trained."""
LOUDNESS = -30.0
"""Quieter recordings are made as loud, in decibels of full scale."""
SPEEDS = (0.84, 0.92, 1.0, 1.1, 1.2)
"""Recordings to calibrate on are played so many times as fast, too: there are few."""
SPEECH_WITHIN, SPEECH_SHARE = 3.5, 0.5
"""A window is speech if so large a share of its frames is within so many powers of ten of the
loudest one."""


class VoiceEncoder(nn.Module):
    """Spectrograms [n, frames, MELS] to embeddings of length one [n, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, spectrograms: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(spectrograms)
        found = torch.relu(self.linear(hidden[-1]))
        return found / found.norm(dim=1, keepdim=True)


def voice_encoder(weights: Path) -> nn.Module:
    """Return the encoder with its trained weights, in eval mode."""
    stored = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
    module = VoiceEncoder()
    module.load_state_dict({name: stored[name] for name in module.state_dict()})
    return module.eval()


@cache
def windows_of(languages: Sequence[str], speeds: Sequence[float], hop: int) -> Tensor:
    """Return windows of speech, [n, FRAMES, MELS].

    Args:
        languages: Folders of the package with the recordings.
        speeds: How many times as fast each recording is played.
        hop: Frames from one window to the next.
    """
    folder = SPEECH.required().parent.parent
    files = [file for name in languages for file in sorted((folder / name).glob("*.wav"))]
    found = [
        window
        for file in files
        for speed in speeds
        for window in _cut(spectrogram_of(_read(file, speed)), hop)
    ]
    return torch.from_numpy(np.stack(found))


def _read(file: Path, speed: float) -> np.ndarray:
    """Return a recording in -1 to 1, RATE samples per second, played at a speed."""
    recording = open_recording(file)
    taken = 50 * round(recording.rate * speed / 50)  # few different ratios, with small filters
    played = replace(recording, rate=taken)
    return played.piece(0, played.length_at(RATE), RATE).astype(np.float64)


def spectrogram_of(samples: np.ndarray) -> np.ndarray:
    """Return energies by band, [frames, MELS] float32, of a recording in -1 to 1."""
    loudness = 10 * math.log10(max(float(np.mean(samples**2)), 1e-12))
    louder = 10 ** (max(0.0, LOUDNESS - loudness) / 20)
    spectrum = torch.stft(
        torch.from_numpy(samples * louder),
        FFT,
        HOP,
        window=torch.hann_window(FFT, dtype=torch.float64),
        pad_mode="constant",
        return_complex=True,
    )
    return (_bands() @ spectrum.abs().square().numpy()).T.astype(np.float32)


@cache
def _bands() -> np.ndarray:
    """Return Slaney's triangles on the mel scale, each of area one, [MELS, FFT // 2 + 1]."""
    edges = _to_hertz(np.linspace(0, _to_mel(RATE / 2), MELS + 2))
    from_edges = edges[:, None] - np.linspace(0, RATE / 2, FFT // 2 + 1)
    widths = np.diff(edges)[:, None]
    rising, falling = -from_edges[:-2] / widths[:-1], from_edges[2:] / widths[1:]
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]


_LINEAR, _KNEE = 200 / 3, 1000.0
"""Hertz of a mel below the knee, from where on it is a logarithm."""
_STEP = math.log(6.4) / 27


def _to_mel(hertz: float) -> float:
    return _KNEE / _LINEAR + math.log(hertz / _KNEE) / _STEP


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    above = _KNEE * np.exp(_STEP * (mels - _KNEE / _LINEAR))
    return np.where(mels < _KNEE / _LINEAR, _LINEAR * mels, above)


def _cut(spectrogram: np.ndarray, hop: int) -> Iterator[np.ndarray]:
    """Yield the windows that are speech for the most part."""
    energies = np.log10(spectrogram.sum(1) + 1e-10)
    is_speech = energies > energies.max() - SPEECH_WITHIN
    for first in range(0, len(spectrogram) - FRAMES + 1, hop):
        if is_speech[first : first + FRAMES].mean() > SPEECH_SHARE:
            yield spectrogram[first : first + FRAMES]
