"""Write what people deploy: ONNX, a torch.export program, safetensors; verify what was written."""

from compressor.formats.onnx_file import ROUTES, Route, export_onnx, routes_of, user_inputs
from compressor.formats.program_file import save_program
from compressor.formats.session import OnnxModule, call_once
from compressor.formats.smaller_types import write_half, write_int8
from compressor.formats.verification import Case, verify_onnx
from compressor.formats.weights_file import check_storable, save_weights

__all__ = [
    "ROUTES",
    "Case",
    "OnnxModule",
    "Route",
    "call_once",
    "check_storable",
    "export_onnx",
    "routes_of",
    "save_program",
    "save_weights",
    "user_inputs",
    "verify_onnx",
    "write_half",
    "write_int8",
]
