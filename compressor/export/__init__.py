"""Write what people deploy: ONNX, a torch.export program, safetensors; verify what was written."""

from compressor.export.onnx_file import export_onnx, user_inputs
from compressor.export.program_file import save_program
from compressor.export.verification import Case, verify_onnx
from compressor.export.weights_file import save_weights

__all__ = ["Case", "export_onnx", "save_program", "save_weights", "user_inputs", "verify_onnx"]
