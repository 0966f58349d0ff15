"""Write what people deploy: ONNX, a torch.export program, safetensors; verify what was written."""

from compressor.export.onnx_file import export_onnx, user_inputs
from compressor.export.program_file import save_program
from compressor.export.session import OnnxModule
from compressor.export.smaller_types import write_half, write_int8
from compressor.export.verification import Case, verify_onnx
from compressor.export.weights_file import save_weights

__all__ = [
    "Case",
    "OnnxModule",
    "export_onnx",
    "save_program",
    "save_weights",
    "user_inputs",
    "verify_onnx",
    "write_half",
    "write_int8",
]
