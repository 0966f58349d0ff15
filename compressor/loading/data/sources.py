"""Open what the user names (--data, --test) as a dataset of inputs and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from compressor.errors import CompressorError, UsageError
from compressor.loading.callables import import_named
from compressor.loading.data.array_files import HOW
from compressor.loading.data.arrays import load_arrays
from compressor.loading.data.audio_files import OTHERS, WAV
from compressor.loading.data.dataset import Data
from compressor.loading.data.image_folders import load_images
from compressor.loading.data.objects import data_of, is_dataset
from compressor.loading.data.reading import Reading
from compressor.loading.data.recordings import load_recordings
from compressor.loading.data.text import load_texts
from compressor.loading.data.text.text_files import PARQUET


class _Kind(NamedTuple):
    """A kind of files that hold samples.

    Attributes:
        words: What messages call such files.
        beginnings: The first bytes of such files.
        endings: Endings of names, which count where the content says nothing.
    """

    words: str
    beginnings: tuple[bytes, ...]
    endings: tuple[str, ...]


ARRAYS = _Kind("arrays (.npz, .npy)", (b"\x93NUMPY", b"PK"), (".npz", ".npy"))
SOUND = _Kind(
    "recordings",
    (*WAV, *OTHERS),
    (".wav", ".flac", ".ogg", ".mp3", ".aiff"),
)
IMAGES = _Kind("images", (), IMG_EXTENSIONS)
TEXT = _Kind("text", (PARQUET,), (".txt", ".jsonl", ".csv", ".tsv", ".parquet"))
KINDS = (ARRAYS, SOUND, IMAGES, TEXT)

ALL = (
    "name .npz or .npy files, files of text, a folder of images, recordings, text or .npy files, "
    "or package.module:name of a dataset"
)


def load_data(specs: Sequence[str], reading: Reading | None = None) -> Data:
    """Open the data that the user named.

    Args:
        specs: `.npz` and `.npy` files of arrays (see `load_arrays`); or audio files; or files of
            text (see `load_texts`); or one folder of such files or of images, or with a sub-folder
            of images or recordings per class (in alphabetical order; sub-folders that are all named
            by numbers are those classes); or one 'package.module:name' or 'path/file.py:name' of a
            dataset, or of a function that returns one. Samples are (inputs, target), the inputs
            alone, or dicts.
        reading: How files are read.

    Raises:
        UsageError: There is no such data, or options do not apply to it.
        CompressorError: The data does not hold what it should.
    """
    reading = reading or Reading()
    if not specs:
        raise UsageError("no data was named", next_step=ALL)
    paths = [Path(spec) for spec in specs]
    if all(path.is_file() for path in paths):
        return _load_files(paths, reading)
    if len(specs) > 1:
        missing = [spec for spec, path in zip(specs, paths, strict=True) if not path.is_file()]
        raise UsageError(
            "several data sources can only be .npz, .npy, text or audio files",
            where=f"not a file: {missing[0]}",
            next_step="name several files, or one folder or callable",
        )
    if paths[0].is_dir():
        return _load_folder(paths[0], reading)
    if ":" not in specs[0]:
        raise UsageError(f"there is no data at {specs[0]}", next_step=ALL)
    given = [
        *reading.of_images_alone(),
        *reading.of_sound_alone(),
        *reading.of_text_alone(),
    ]
    if given:
        raise UsageError(
            f"a dataset of your own is taken as it comes; {', '.join(given)} do not apply to it",
            where=specs[0],
            next_step="normalise, resample and cut inside the dataset",
        )
    return _load_named(specs[0])


def _load_files(paths: Sequence[Path], reading: Reading) -> Data:
    kinds = [_kind_of_file(path) for path in paths]
    if len(set(kinds)) > 1:
        raise UsageError(
            f"{paths[0]} and another are files of two kinds: "
            f"{' and '.join(dict.fromkeys(kind.words for kind in kinds))}",
            where=", ".join(map(str, paths[:3])),
            next_step="name files of one kind",
        )
    _refuse_others(kinds[0], reading, paths[0])
    if kinds[0] is SOUND:
        return load_recordings(paths, None, reading)
    return load_texts(paths, None, reading) if kinds[0] is TEXT else load_arrays(paths, reading)


def _load_folder(folder: Path, reading: Reading) -> Data:
    files: dict[_Kind, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = _kind_in_folder(path) if path.is_file() else None
        if kind is not None:
            files.setdefault(kind, []).append(path)
    texts = files.pop(TEXT, [])  # beside other samples they say something of these
    if texts and not files:
        files[TEXT] = texts
    if len(files) > 1:
        told = ", ".join(f"{kind.words} such as {some[0]}" for kind, some in files.items())
        raise UsageError(
            f"the folder holds data of several kinds: {told}",
            where=str(folder),
            next_step="give each kind a folder of its own, and name one",
        )
    _refuse_others(next(iter(files), IMAGES), reading, folder)
    if SOUND in files:
        return load_recordings(files[SOUND], folder, reading)
    if TEXT in files:
        return load_texts(files[TEXT], folder, reading)
    if ARRAYS in files:
        deeper = [path for path in files[ARRAYS] if path.parent != folder]
        if deeper:
            raise UsageError(
                f"arrays lie in sub-folders, such as {deeper[0]}",
                where=str(folder),
                next_step=f"name the folder of one set of samples: {deeper[0].parent}",
            )
        return replace(load_arrays(files[ARRAYS], reading), name=folder.name)
    return load_images(files.get(IMAGES, []), folder, reading)


def _refuse_others(kind: _Kind, reading: Reading, where: Path) -> None:
    """Refuse options that apply to another kind of samples alone."""
    if kind not in (IMAGES, ARRAYS):
        _refuse(reading.of_images_alone(), IMAGES.words, where)
    if kind is not SOUND:
        _refuse(reading.of_sound_alone(), SOUND.words, where)
    if kind is not TEXT:
        _refuse(reading.of_text_alone(), "files of text", where)


def _refuse(given: Sequence[str], words: str, where: Path) -> None:
    if given:
        raise UsageError(
            f"there are no {words} here, to which alone {' and '.join(given)} can apply",
            where=str(where),
            next_step=f"leave {' and '.join(given)} out",
        )


def _kind_of_file(path: Path) -> _Kind:
    """Return the kind of a file that is named by itself.

    Raises:
        UsageError: It is evidently meant to be read some other way.
    """
    with path.open("rb") as file:
        beginning = file.read(1024)
    kind = _by_content(beginning)
    if kind is not None:
        return kind
    ending = path.suffix.lower()
    if ending in TEXT.endings:  # what is wrong with it is said where text is read
        return TEXT
    if not beginning:
        return SOUND if ending in SOUND.endings else ARRAYS
    is_code, is_image = ending == ".py", ending in IMAGES.endings
    if b"\0" not in beginning and not is_code and not is_image:
        return TEXT
    name = "a Python file" if is_code else "an image" if is_image else "a file of another kind"
    raise UsageError(
        f"data is files of arrays, text or recordings, a folder, or a dataset's name, and this is "
        f"{name}",
        where=str(path),
        next_step=f"write arrays with {HOW}, or name a dataset, or a function that returns one: "
        f"{path if is_code else 'path/file.py'}:name",
    )


def _kind_in_folder(path: Path) -> _Kind | None:
    """Return the kind of a file among others; None where it is no sample (a list, an archive)."""
    ending = path.suffix.lower()
    if path.name.startswith("."):
        return None
    if ending in IMAGES.endings:
        return IMAGES
    with path.open("rb") as file:
        by_content = _by_content(file.read(16))
    if by_content is ARRAYS and ending == ".zip":
        return None
    return by_content or next((kind for kind in KINDS if ending in kind.endings), None)


def _by_content(beginning: bytes) -> _Kind | None:
    """Return the kind that a file's first bytes tell."""
    if beginning[:4] == b"RIFF" and beginning[8:12] not in (b"WAVE", b""):
        return None  # pictures in WebP, and films
    return next((kind for kind in KINDS if beginning.startswith(kind.beginnings)), None)


def _load_named(spec: str) -> Data:
    """The dataset that a spec names, or that the function or class which it names gives."""
    named = import_named(spec)
    if callable(named) and not is_dataset(named):
        try:
            named = named()
        except Exception as error:  # the callable is the user's code
            raise CompressorError(
                f"the callable raised {type(error).__name__}: {error}",
                where=spec,
                next_step="it is called without arguments and returns a dataset",
            ) from error
    data = data_of(named, spec)
    return replace(data, labelled=data.fetch([0]).target is not None)
