"""Name the execution providers of ONNX Runtime, and say which the installed one lacks."""

from __future__ import annotations

from compressor.errors import UsageError
from compressor.files.format_table import TENSORRT

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    TENSORRT: ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
"""What runs networks, as options spell it -> the runtime's execution providers: the one that is
asked for, and the one for what it does not take."""

_PACKAGES = {
    "cuda": "install onnxruntime-gpu, or give",
    TENSORRT: "on a machine with an NVIDIA GPU install onnxruntime-gpu and tensorrt, or give",
}


def has_provider(device: str) -> bool:
    """Return whether the installed runtime runs on the device."""
    import onnxruntime as ort

    return device in PROVIDERS and PROVIDERS[device][0] in ort.get_available_providers()


def check_provider(device: str, where: str = "--latency-on", instead: str = "cpu") -> None:
    """Check that the installed runtime runs on the device.

    Args:
        device: A key of `PROVIDERS`.
        where: The option that asks for it.
        instead: What else can be given there.

    Raises:
        UsageError: It does not.
    """
    if not has_provider(device):
        packages = _PACKAGES.get(device, "")
        raise UsageError(
            f"this ONNX Runtime does not run on {device!r}",
            where=where,
            consequence="nothing was timed",
            next_step=f"{packages} {where} {instead}"
            if packages
            else f"give one of {', '.join(PROVIDERS)}",
        )
