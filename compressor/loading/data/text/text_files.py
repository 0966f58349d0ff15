"""Read files of text: what they hold is told by their content, and what is wrong by its line."""

from __future__ import annotations

import codecs
from pathlib import Path

from compressor.errors import CompressorError

PARQUET = b"PAR1"
"""The first bytes of a Parquet file."""

_OTHER_ENCODINGS = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    """Read a file of text in UTF-8, with line ends as "\\n".

    Raises:
        CompressorError: It cannot be read, holds no text, or is in another encoding; where, by line
            and byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"the file cannot be read: {error}", "check the file") from error
    encoding = next((name for mark, name in _OTHER_ENCODINGS.items() if content[:2] == mark), None)
    if encoding is not None:
        raise _refusal(path, f"the text is in {encoding}", "save it in UTF-8")
    if b"\0" in content:
        raise _refusal(
            _place(path, content, content.index(b"\0")),
            "the file is no text: it holds a zero byte",
            "name a file of text in UTF-8; token ids are given as arrays (.npz)",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(
            _place(path, content, error.start),
            f"the text is not in UTF-8: {error.reason}, 0x{content[error.start]:02x}",
            "save it in UTF-8: iconv -f LATIN1 -t UTF-8",
        ) from error
    if not text.strip():
        raise _refusal(path, "the file holds no text", "name one with text in it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _place(path: Path, content: bytes, at: int) -> str:
    line = content.count(b"\n", 0, at) + 1
    column = at - content.rfind(b"\n", 0, at)
    return f"{path}, line {line}, byte {column} of it"


def _refusal(where: object, what: str, next_step: str) -> CompressorError:
    return CompressorError(
        what, where=str(where), consequence="no sample was read", next_step=next_step
    )
