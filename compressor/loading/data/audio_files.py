"""Read pieces of audio files as one channel of real numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from compressor.errors import CompressorError
from compressor.extras import load

Array = np.ndarray[Any, Any]

_HALF_FILTER = 10
"""Half of the length of SciPy's low-pass filter, in samples of the lower rate."""


@dataclass(frozen=True)
class Recording:
    """An audio file.

    Attributes:
        path: The file.
        rate: Its samples per second.
        frames: How many there are, in each channel.
    """

    path: Path
    rate: int
    frames: int

    def length_at(self, rate: int) -> int:
        """Return how many samples it has when it is resampled."""
        return math.ceil(self.frames * rate / self.rate)

    def piece(self, start: int, length: int, rate: int) -> Array:
        """Return a piece of the resampled recording, [length] float32; zeros follow its end.

        Only the piece is read and resampled, and is what it is within the whole.

        Args:
            start: Where it begins, in samples of the new rate.
            length: How many samples it has.
            rate: The new rate.

        Raises:
            CompressorError: The file cannot be read, or holds numbers that are not finite.
        """
        step = math.gcd(rate, self.rate)
        up, down = rate // step, self.rate // step
        beside = 1 + math.ceil(_HALF_FILTER * max(up, down) / (up * down)) if up != down else 0
        first, last = max(0, start // up - beside), (start + length) // up + 1 + beside
        samples = self._read(first * down, min(last * down, self.frames))
        if up != down and len(samples):
            samples = resample_poly(samples, up, down)
        piece = np.zeros(length, np.float32)
        part = samples[start - first * up :][:length]
        piece[: len(part)] = part
        return piece

    def _read(self, start: int, stop: int) -> Array:
        """Return a part as it is stored, with its channels' mean, [samples] float32."""
        try:
            values = _reader_of(self.path).read(self.path, start, stop)
        except CompressorError:
            raise
        except Exception as error:
            raise unreadable(self.path, error) from error
        mono = values.mean(1) if values.ndim == 2 else values
        if not np.isfinite(mono).all():
            raise unreadable(self.path, ValueError("it holds numbers that are not finite"))
        return mono.astype(np.float32)


def open_recording(path: Path) -> Recording:
    """Read how long a recording is, and how often it was sampled.

    Raises:
        UsageError: It takes a package that is not installed.
        CompressorError: It cannot be read, or is empty.
    """
    try:
        rate, frames = _reader_of(path).describe(path)
    except CompressorError:
        raise
    except Exception as error:  # each library has its own
        raise unreadable(path, error) from error
    if not frames or not rate:
        raise unreadable(path, ValueError("it is empty"))
    return Recording(path, rate, frames)


def unreadable(path: Path, error: Exception) -> CompressorError:
    """Return the error of a file that is no recording."""
    return CompressorError(
        f"not a readable recording: {error}",
        where=str(path),
        next_step="repair it, or take it out",
    )


class _Reader(NamedTuple):
    """How a kind of audio file is read.

    Attributes:
        describe: Returns the rate and the number of frames.
        read: Returns the frames from a first to one before a last, [frames] or [frames, channels],
            between -1 and 1.
    """

    describe: Callable[[Path], tuple[int, int]]
    read: Callable[[Path, int, int], Array]


def _reader_of(path: Path) -> _Reader:
    with path.open("rb") as file:
        return _BY_SOUNDFILE if file.read(4).startswith(OTHERS) else _BY_SCIPY


WAV = (b"RIFF", b"RIFX", b"RF64")
"""The first bytes of .wav files."""

OTHERS = (b"fLaC", b"OggS", b"FORM", b"ID3", b"\xff\xfb")
"""The first bytes of files that soundfile reads."""


def _wav(path: Path) -> tuple[int, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks beside the samples
        try:
            rate, values = wavfile.read(path, mmap=True)
        except ValueError:  # 24 bits cannot be mapped, nor can nothing
            rate, values = wavfile.read(path)
    return int(rate), values


def _describe_wav(path: Path) -> tuple[int, int]:
    rate, values = _wav(path)
    return rate, len(values)


def _read_wav(path: Path, start: int, stop: int) -> Array:
    values = np.asarray(_wav(path)[1][start:stop])
    if values.dtype.kind == "f":
        return values
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    return values.astype(np.float64) / -float(np.iinfo(values.dtype).min)


def _soundfile(path: Path) -> Any:
    return load("soundfile", str(path), "convert it to .wav")


def _describe_other(path: Path) -> tuple[int, int]:
    told = _soundfile(path).info(str(path))
    return int(told.samplerate), int(told.frames)


def _read_other(path: Path, start: int, stop: int) -> Array:
    values, _ = _soundfile(path).read(str(path), start=start, stop=stop, dtype="float32")
    return np.asarray(values)


_BY_SCIPY = _Reader(_describe_wav, _read_wav)
_BY_SOUNDFILE = _Reader(_describe_other, _read_other)
