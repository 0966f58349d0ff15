"""Make the errors that say what is wrong with an ONNX file."""

from __future__ import annotations

from compressor.errors import CompressorError


class OnnxFileError(CompressorError):
    """An ONNX file from which no network is read."""

    usually = "nothing was loaded"


DAMAGED = "export or download the file again; `onnx.checker` tells more of it"
REFUSED = "leave this part out of the file (export without it), and run it behind the network"


def damaged(what: str, where: str = "") -> OnnxFileError:
    """Make the error for a file that is no valid ONNX file."""
    return OnnxFileError(what, where=where, next_step=DAMAGED)


def refused(what: str, where: str = "", next_step: str = REFUSED) -> OnnxFileError:
    """Make the error for a valid file that holds something that no network is made of here."""
    return OnnxFileError(what, where=where, next_step=next_step)
