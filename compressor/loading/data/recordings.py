"""Make a dataset of audio files: resampled, of one channel, cut into pieces of one length."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from compressor.calls import Call
from compressor.errors import UsageError
from compressor.listing import some_of
from compressor.loading.data.audio_files import Recording, open_recording
from compressor.loading.data.dataset import Data
from compressor.loading.data.image_folders import classes_of_folders
from compressor.loading.data.reading import Reading
from compressor.loading.data.threads import ReadByThreads


@dataclass(frozen=True)
class Recordings(ReadByThreads):
    """Pieces of recordings, one after the other; what is shorter is filled up with zeros.

    Attributes:
        pieces: Pairs of a recording's number and where in it a piece begins.
        recordings: The files.
        classes: The class of each recording, or None.
        rate: Samples per second.
        shape: Of a piece: the samples, perhaps with a dimension of one channel.
    """

    pieces: Sequence[tuple[int, int]]
    recordings: Sequence[Recording]
    classes: Sequence[int] | None
    rate: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        number, start = self.pieces[index]
        length = max(self.shape)
        piece = self.recordings[number].piece(start, length, self.rate)
        target = None if self.classes is None else self.classes[number]
        return torch.from_numpy(piece).reshape(self.shape), target

    @property
    def labels(self) -> Tensor | None:
        """Return the classes of all pieces, [pieces]; None where there are none."""
        if self.classes is None:
            return None
        return torch.tensor([self.classes[number] for number, _ in self.pieces])

    @property
    def sources(self) -> list[int]:
        """Return which recording each piece is of, whose other pieces are much like it."""
        return [number for number, _ in self.pieces]


def load_recordings(paths: Sequence[Path], folder: Path | None, reading: Reading) -> Data:
    """Read audio files as one dataset.

    Args:
        paths: The files.
        folder: The folder that they lie in, whose sub-folders are classes; None: no classes.
        reading: Says the rate and the length of a piece, and what the network takes.

    Raises:
        UsageError: Rate or length are not known, or the network does not take such samples.
        CompressorError: A file cannot be read.
    """
    where = str(folder or ", ".join(map(str, paths[:3])))
    classes = None if folder is None else classes_of_folders(paths, folder, "recordings")
    with ThreadPoolExecutor() as readers:
        recordings = list(readers.map(open_recording, paths))
    rate = reading.sample_rate or _own_rate(recordings, where)
    length = _length(recordings, rate, reading, where)
    shape = _shape(length, rate, reading, where)
    pieces = [(n, start) for n, r in enumerate(recordings) for start in _starts(r, rate, length)]
    dataset = Recordings(pieces, recordings, classes, rate, shape)
    count = None if classes is None else max(classes) + 1
    name = folder.name if folder is not None else ", ".join(path.name for path in paths[:3])
    data = Data(name, dataset, classes is not None, count)
    return replace(data, notes=_notes(name, dataset, reading))


def _own_rate(recordings: Sequence[Recording], where: str) -> int:
    rates = sorted({recording.rate for recording in recordings})
    if len(rates) > 1:
        raise UsageError(
            f"the recordings have different sample rates: {some_of(map(str, rates))} Hz",
            where=where,
            next_step="say the one that the network was trained for: --sample-rate 16000",
        )
    return rates[0]


def _length(recordings: Sequence[Recording], rate: int, reading: Reading, where: str) -> int:
    """Return how many samples a piece has."""
    if reading.window is not None:
        length = round(reading.window * rate)
        if length < 1:
            raise UsageError(
                f"--window {reading.window:g} is less than a sample at {rate} Hz",
                where=where,
                next_step="give the length of a piece in seconds: --window 1",
            )
        return length
    if reading.signal is not None and not reading.is_free:
        return max(reading.signal.shape[1:])
    lengths = {recording.length_at(rate) for recording in recordings}
    if len(lengths) > 1:
        raise UsageError(
            f"the recordings have {len(lengths)} different lengths, {min(lengths) / rate:.3g} to "
            f"{max(lengths) / rate:.3g} s",
            where=where,
            next_step="say how long the pieces are that the network is given: --window 1 (seconds)",
        )
    return lengths.pop()


def _shape(length: int, rate: int, reading: Reading, where: str) -> tuple[int, ...]:
    """Return the shape of a piece that the network takes: the samples, perhaps one channel."""
    shapes = [(1, length), (length,), (length, 1)]
    if reading.signal is not None:
        ones = [size == 1 for size in reading.signal.shape[1:]]
        accepted = [shape for shape in shapes if [size == 1 for size in shape] == ones]
        told = f"the network's example input is {'x'.join(map(str, reading.signal.shape))}"
    else:
        accepted = [s for s in shapes if _is_accepted(s, reading)]
        told = "the network accepts neither " + " nor ".join(
            "x".join(map(str, (1, *shape))) for shape in shapes
        )
    if accepted:
        return accepted[0]
    raise UsageError(
        f"a recording is a row of samples, {length} of them in {length / rate:.3g} s, and {told}",
        where=where,
        next_step="another --window or --input may fit; a network that takes spectrograms is given "
        "them by a dataset of your own, --data own.py:name, or as .npy files",
    )


def _is_accepted(shape: tuple[int, ...], reading: Reading) -> bool:
    if reading.accepts is None:
        return True
    return reading.accepts(Call((torch.randn(2, *shape, generator=torch.Generator()),)))


def _starts(recording: Recording, rate: int, length: int) -> range:
    """Return where the pieces begin; a last one that is less than half full is left out."""
    pieces, rest = divmod(recording.length_at(rate), length)
    return range(0, max(1, pieces + (2 * rest >= length)) * length, length)


def _notes(name: str, dataset: Recordings, reading: Reading) -> tuple[str, ...]:
    rates = sorted({recording.rate for recording in dataset.recordings})
    length, rate = max(dataset.shape), dataset.rate
    own = f"{some_of(map(str, rates))} Hz"
    if rates == [rate]:
        how = own if reading.sample_rate is not None else f"{own} (--sample-rate says another)"
    else:
        how = f"{own}, resampled to {rate} Hz"
    return (
        f"{name}: {len(dataset.recordings)} recordings of {how}, as {len(dataset)} pieces of "
        f"{length / rate:.3g} s ({length} samples)",
    )
