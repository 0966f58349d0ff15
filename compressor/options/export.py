"""Options of `compress export`."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from compressor.errors import UsageError
from compressor.options.checks import at_least, refusal
from compressor.options.model_and_data import DataOptions
from compressor.options.spelling import RECOVERY, option, switch

FILE = Group("The file", sort_key=1)


@Parameter(name="*")
@dataclass(frozen=True)
class ExportOptions(DataOptions):
    """What the file is to be; raises UsageError for a value that cannot be meant."""

    format: Annotated[Literal["onnx", "openvino"], option(FILE)] = "onnx"
    """What is written: ONNX files, or OpenVINO models, which are made of them."""

    opset: Annotated[int | None, option(FILE, "N")] = None
    """Version of ONNX's operators; default what PyTorch's exporter prefers."""

    batch: Annotated[int | None, option(FILE, "N")] = None
    """Fix the batch at so many samples; default free, where the network allows it."""

    image_size: Annotated[str | None, option(FILE, "HxW")] = None
    """Size of the images, such as 320 or 320x480; default that of the example inputs."""

    weights: Annotated[str | None, option(FILE, "FILE")] = None
    """Weights of the result that were trained further (a state dict: .safetensors, .pt): all \
files of the folder are written for them."""

    half: Annotated[bool, switch(FILE)] = False
    """Also a file that computes in 16 bits; inputs and outputs stay as they are."""

    quantize: Annotated[Literal["none", "int8"], option(FILE)] = "none"
    """Also a file that computes in 8 bits, its ranges found on --data."""

    calibration: Annotated[int, option(RECOVERY, "N")] = 256
    """Samples of --data that the ranges are found on; labels are not needed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, calibration=1)
        for name in ("opset", "batch"):
            if getattr(self, name) is not None:
                at_least(self, **{name: 1})
        if self.weights is not None:
            for name in ("format", "opset", "batch", "image_size", "half", "quantize"):
                if getattr(self, name) not in (None, False, "none", "onnx"):
                    raise refusal(name, "--weights writes the folder's usual files; export again")
        if self.format != "onnx" and self.opset is not None:
            raise refusal("opset", "it is of ONNX files; leave out --format")
        if self.image_size is not None and not _SIZE.fullmatch(self.image_size):
            raise refusal("image_size", f"{self.image_size!r} is no size such as 320 or 320x480")
        if self.quantize == "int8" and not self.data:
            raise UsageError(
                "the ranges of 8-bit numbers are found on samples",
                where="--quantize int8",
                consequence="nothing was loaded",
                next_step="give --data, for example the training data; labels are not needed",
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the height and width that are asked for; None where they stay as they are."""
        if self.image_size is None:
            return None
        height, _, width = self.image_size.partition("x")
        return int(height), int(width or height)

    @property
    def special(self) -> str:
        """Return what is not the usual, as the end of the stem of the file's name; "" if all is."""
        words = [
            f"b{self.batch}" if self.batch is not None else "",
            "{}x{}".format(*self.size) if self.size is not None else "",
            f"opset{self.opset}" if self.opset is not None else "",
        ]
        return "".join(f"_{word}" for word in words if word)


_SIZE = re.compile(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})?")
