"""Write what people deploy: ONNX, a torch.export program, safetensors; verify what was written."""

from compressor.formats.onnx_file import WAYS, Way, export_onnx, user_inputs, ways_of
from compressor.formats.program_file import save_program
from compressor.formats.session import OnnxModule, call_once
from compressor.formats.smaller_types import write_half, write_int8
from compressor.formats.verification import Case, verify_onnx
from compressor.formats.weights_file import check_storable, save_weights

__all__ = [
    "WAYS",
    "Case",
    "OnnxModule",
    "Way",
    "call_once",
    "check_storable",
    "export_onnx",
    "save_program",
    "save_weights",
    "user_inputs",
    "verify_onnx",
    "ways_of",
    "write_half",
    "write_int8",
]
