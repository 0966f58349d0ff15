"""Hold the examples at the end of each command's help, by the command's name."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "compress model.pt --ratio 0.5",
        "compress torchvision:resnet50 --pretrained --data train/ --test val/ --epochs 5",
        "compress weights.safetensors --factory nets.py:build --input 1x3x32x32",
        "compress model.pt --of latency --ratio 0.5 --dry-run",
    ),
    "bench": (
        "compress bench exported/original.onnx exported/resnet50 --batch 1,32 --threads 1",
        "compress bench torchvision:resnet18 --backend torch torch-compiled",
    ),
    "compare": ("compress compare exported/half exported/quarter --out picture.svg",),
    "demo": ("compress demo",),
    "export": (
        "compress export exported/resnet50 --half",
        "compress export exported/resnet50 --quantize int8 --data train/ --test val/",
        "compress export exported/resnet50 --batch 8 --image-size 320 --opset 18",
    ),
    "inspect": (
        "compress inspect torchvision:resnet50",
        "compress inspect model.pt --graph network.svg",
    ),
    "resume": ("compress resume exported/resnet50", "compress resume exported/net --lr 0.003"),
    "sensitivity": ("compress sensitivity model.pt --data train.npz --test test.npz",),
    "sweep": (
        "compress sweep model.pt --data train.npz --test test.npz --criteria reconstruction,l2",
        "compress sweep model.pt --data train.npz --test test.npz --grid grid.yaml --jobs 4",
    ),
}


def epilogue(name: str) -> str:
    """Return the text of a command's examples, indented, under the word "Examples:"."""
    return "\n".join(["Examples:", *(f"  {line}" for line in EXAMPLES[name])])
