"""Load `torch.export` programs after inspecting them.

`torch.export.load` runs what a crafted archive asks for: pickled sample inputs and payloads,
compiled libraries, and texts that become code. Everything that could is looked at first, through
the same reader, and what is not provably harmless is refused by the name of its entry.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader
from torch.export.pt2_archive._package import load_pt2
from torch.serialization import get_unsafe_globals_in_checkpoint

from compressor.errors import CompressorError
from compressor.loading.archives import require_whole
from compressor.loading.pickle_scan import scan_pickle
from compressor.loading.pickles import TRUST
from compressor.loading.program_text import harmful_texts
from compressor.loading.sniff import FileKind, sniff
from compressor.loading.wording import cut_list, one_line

MODELS, SAMPLE_INPUTS = "models/", "data/sample_inputs/"
PAYLOADS = ("data/weights/", "data/constants/")
PLAIN_TENSORS = ("weight_", "tensor_")
# entries that torch reads as nothing but bytes, numbers or text
INERT = ("archive_format", "archive_version", "byteorder", ".data/", ".format_version", "extra/")
TEXT_SHOWN = 80


def load_program_file(path: str | Path, *, trust_pickle: bool = False) -> ExportedProgram:
    """Load the program in a file of `torch.export.save` or `compressor.save`, inspected first.

    Raises:
        CompressorError: It is no program, is damaged, or would run code and is not trusted.
    """
    path = Path(path)
    if not path.is_file() or sniff(path) is not FileKind.PROGRAM:
        is_there = "is not a torch.export program" if path.is_file() else "is not there"
        raise CompressorError(
            f"{path.name} {is_there}",
            where=str(path),
            consequence="nothing was loaded",
            next_step="copy or save the file again",
        )
    require_whole(path)
    if not trust_pickle:
        inspect_program(path)
    try:
        with path.open("rb") as file:
            programs = load_pt2(file).exported_programs
    except Exception as error:
        raise _unreadable(path, error) from error
    if len(programs) != 1:
        raise CompressorError(
            f"{path.name} holds {len(programs)} programs, and one is needed",
            where=str(path),
            next_step="give an archive of one program",
        )
    return next(iter(programs.values()))


def inspect_program(path: Path) -> None:
    """Raise an error unless loading the archive provably runs nothing of its own.

    Raises:
        CompressorError: Entries would run code; the message names them and what they would run.
    """
    try:
        reader = PT2ArchiveReader(str(path))
        entries = reader.get_file_names()
        findings = [f"{entry}: {what}" for entry in entries for what in _findings(reader, entry)]
        # the reader finds entries regardless of case: one name could hide behind another
        if len({entry.casefold() for entry in entries}) < len(entries):
            findings.append("two entries of the same name")
    except Exception as error:
        raise _unreadable(path, error) from error
    if findings:
        raise CompressorError(
            f"{path.name} would run code when it is loaded: {cut_list(findings)}",
            where=str(path),
            consequence="it was not loaded, and nothing of it was run",
            next_step=TRUST,
        )


def _findings(reader: PT2ArchiveReader, entry: str) -> Iterator[str]:
    if entry.startswith(MODELS):
        for key, text in harmful_texts(json.loads(reader.read_bytes(entry))):
            yield f"{text[:TEXT_SHOWN]!r} as {key or 'a key'}"
    elif entry.startswith(SAMPLE_INPUTS):
        yield from _pickle_findings(reader.read_bytes(entry))
    elif entry.startswith(PAYLOADS):
        yield from _payload_findings(reader, entry)
    elif not entry.startswith(INERT):
        yield "an entry of unknown use (a compiled library?)"


def _payload_findings(reader: PT2ArchiveReader, entry: str) -> Iterator[str]:
    file_name = entry.rpartition("/")[2]
    if entry.endswith(".json"):
        config: dict[str, Any] = json.loads(reader.read_bytes(entry))
        for key, text in harmful_texts(config):
            yield f"{text[:TEXT_SHOWN]!r} as {key or 'a key'}"
        for name, payload in config["config"].items():
            if payload["use_pickle"] is not False:
                yield f"{name} is a pickle (use_pickle)"
            elif not payload["path_name"].startswith(PLAIN_TENSORS):
                yield f"{name} is an object, not a tensor ({payload['path_name']})"
    elif file_name.endswith(".pt"):
        yield from _pickle_findings(reader.read_bytes(entry))
    elif not file_name.startswith(PLAIN_TENSORS):
        yield "an object, not a tensor"


def _pickle_findings(record: bytes) -> Iterator[str]:
    """Yield what a pickle in the archive would call, in words; nothing if it holds only tensors.

    Torch falls back to a full unpickler where the safe one fails, so the safe one must succeed.
    """
    if not record:
        return
    try:
        torch.load(io.BytesIO(record), map_location="cpu", weights_only=True)
    except Exception as error:
        names = _unsafe_names(record)
        yield (
            f"a pickle that calls {cut_list(names)}"
            if names
            else (f"a pickle that is not made of tensors ({one_line(error)})")
        )


def _unsafe_names(record: bytes) -> list[str]:
    try:
        return sorted(get_unsafe_globals_in_checkpoint(io.BytesIO(record)))
    except ValueError:
        pass
    try:
        return sorted(scan_pickle(record).names)
    except ValueError:
        return []


def _unreadable(path: Path, error: Exception) -> CompressorError:
    return CompressorError(
        f"{path.name} cannot be read as a torch.export program ({one_line(error)})",
        where=str(path),
        consequence="nothing was loaded",
        next_step="export it again with this version of torch "
        f"({torch.__version__}), or use a state dict with --factory",
    )
