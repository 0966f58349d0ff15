"""Write what people deploy: ONNX, a torch.export program, safetensors; verify what was written."""

from compressor.export.onnx_file import WAYS, Way, export_onnx, user_inputs, ways_of
from compressor.export.program_file import save_program
from compressor.export.session import OnnxModule, call_once
from compressor.export.smaller_types import write_half, write_int8
from compressor.export.verification import Case, verify_onnx
from compressor.export.weights_file import check_storable, save_weights

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
