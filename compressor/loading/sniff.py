"""Tell what a file is by its bytes alone."""

import zipfile
from enum import StrEnum
from pathlib import Path


class FileKind(StrEnum):
    """The kinds of files that are told apart; each value is what users read in messages."""

    TORCH_SAVE = "a torch.save archive"
    PROGRAM = "a torch.export program"
    OLD_PROGRAM = "a torch.export program of an old format (torch 2.7 or before)"
    TORCHSCRIPT = "a TorchScript archive"
    SAFETENSORS = "a safetensors file"
    PICKLE = "a pickle"
    EMPTY = "an empty file"
    TRUNCATED = "a truncated archive: its end is missing"
    ONNX = "an ONNX file"
    HDF5 = "an HDF5 file (Keras?)"
    GGUF = "a GGUF file"
    NUMPY = "a NumPy file"
    ZIP = "a zip archive without a model that torch could have written"
    TEXT = "a text file"
    UNKNOWN = "a file of unknown format"


MAGIC = (
    (b"\x89HDF\r\n\x1a\n", FileKind.HDF5),
    (b"GGUF", FileKind.GGUF),
    (b"\x93NUMPY", FileKind.NUMPY),
)

# the name of an entry, without the archive's root folder -> what the archive is; order matters
ENTRIES = (
    ("serialized_exported_program.json", FileKind.OLD_PROGRAM),
    ("archive_format", FileKind.PROGRAM),
    ("constants.pkl", FileKind.TORCHSCRIPT),
    ("data.pkl", FileKind.TORCH_SAVE),
)

HEAD_BYTES = 4096
SAFETENSORS_HEADER_LIMIT = 100_000_000
ONNX_FIELD_TAGS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"


def sniff(path: Path) -> FileKind:
    """Tell what kind of file is at `path`, from its content.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return FileKind.EMPTY
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if _is_safetensors(head):
        return FileKind.SAFETENSORS
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return FileKind.PICKLE
    if len(head) > 2 and head[0] == 0x08 and head[1] < 32 and head[2] in ONNX_FIELD_TAGS:
        return FileKind.ONNX
    return FileKind.TEXT if _is_text(head) else FileKind.UNKNOWN


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return FileKind.TRUNCATED
    inner = {name.partition("/")[2] for name in names} | set(names)
    for entry, kind in ENTRIES:
        if entry in inner:
            return kind
    return FileKind.NUMPY if any(name.endswith(".npy") for name in names) else FileKind.ZIP


def _is_safetensors(head: bytes) -> bool:
    header_length = int.from_bytes(head[:8], "little")
    return 1 < header_length < SAFETENSORS_HEADER_LIMIT and head[8:9] == b"{"


def _is_text(head: bytes) -> bool:
    try:
        head[:-3].decode("utf-8") if len(head) == HEAD_BYTES else head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return b"\0" not in head
