"""Explain why a network cannot be run or captured: per cause what it is, and what to do about it.

An exception out of torch says what one of its functions could not do, in words about its inside.
The table says what in the user's code asks for it. A cause is known by the text of the exception
and by the functions that it passed through.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from compressor.errors import CompressorError

LINE_LENGTH = 240
LIBRARY = f"{Path(torch.__file__).parent}/"
OURS = f"{Path(__file__).parent}/"


@dataclass(frozen=True)
class Cause:
    """One cause of failures, and how an exception shows it.

    Attributes:
        name: For tests and readers.
        sign: Found in "Type: message" or in one of the lines "in function (file)" after it; its
            groups stand in `what` and `next_step` as {0}, {1}.
        what: What in the user's code causes the failure.
        next_step: What to do about it.
    """

    name: str
    sign: re.Pattern[str]
    what: str
    next_step: str


def _cause(name: str, sign: str, what: str, next_step: str) -> Cause:
    return Cause(name, re.compile(sign, re.MULTILINE), what, next_step)


CAUSES = (
    _cause(
        "endless recursion",
        r"RecursionError: ",
        "forward calls itself without end, or layers are nested deeper than Python allows",
        "end the recursion in forward; where the network is that deep, raise "
        "sys.setrecursionlimit in the file that builds it",
    ),
    _cause(
        "memory",
        r"can't allocate memory|MemoryError|out of memory|not enough memory",
        "forward needs more memory than there is",
        "give smaller inputs (--input), or take a machine with more memory",
    ),
    _cause(
        "an exit",
        r"SystemExit",
        "forward leaves the program (sys.exit)",
        "raise an exception there, or leave that line out where the network is captured",
    ),
    _cause(
        "packed sequences",
        r"^in (?:_?pack_padded_sequence|pad_packed_sequence|pack_sequence) |PackedSequence|"
        r"got FakeTensor[\s\S]*^in forward \(.*rnn\.py\)$",
        "forward packs sequences by their lengths (pack_padded_sequence), whose sizes are the "
        "lengths' values",
        "run the recurrent layer on the padded batch where it is captured: in forward, "
        "`if torch.compiler.is_exporting(): y, _ = self.lstm(x)` (in one direction what it returns "
        "within the lengths is the same; in two it is not, and the network has to be trained so)",
    ),
    _cause(
        "a cache",
        r"<class '[\w.]*\.(\w*Cache)'>",
        "a cache of keys and values ({0}) is an input or an output",
        "switch it off: model.config.use_cache = False, or use_cache=False among the inputs, and "
        "give no past_key_values",
    ),
    _cause(
        "a type of input",
        r"(?:Unsupported input type|Node type mismatch; .*but got) <class '([^']+)'>",
        "an input is a {0}, whose tensors torch.export does not see",
        "register it (torch.export.register_dataclass for a dataclass, "
        "torch.utils._pytree.register_pytree_node for others), or give forward tensors in tuples, "
        "lists and dicts",
    ),
    _cause(
        "a type of output",
        r"Found <class '([^']+)'> in output",
        "forward returns a {0}, whose tensors torch.export does not see",
        "register it (torch.export.register_dataclass for a dataclass, "
        "torch.utils._pytree.register_pytree_node for others), or return tensors in tuples, lists "
        "and dicts",
    ),
    _cause(
        "an uninitialised layer",
        r"UninitializedParameter|uninitialized parameter",
        "a lazy layer has no weights yet",
        "run the network once on an example before it is given",
    ),
    _cause(
        "quantised operators",
        r"quantized|__obj_flatten__|PackedParams|QuantizedCPU",
        "the network is quantised already",
        "prune before quantising: give the network in floating point",
    ),
    _cause(
        "scripted code",
        r"ScriptFunction|ScriptModule|ScriptMethod|__torch__\.",
        "a part of the network is TorchScript, which runs as its own program",
        "use the Python function or class that was scripted",
    ),
    _cause(
        "the meta device",
        r"device meta|meta tensor|Tensor\.item\(\) cannot be called on meta",
        "a tensor is on the meta device: it has a shape and no values",
        "materialise the network (model.to_empty(device='cpu')) and load its weights",
    ),
    _cause(
        "another device",
        r"on the expected device|Expected all tensors to be on the same device|"
        r"not compiled with CUDA|No CUDA GPUs|Found no NVIDIA driver|tensors to be on the same",
        "forward uses a tensor on a device of its own, while the network is captured on the CPU",
        "make it where the input is (torch.zeros(…, device=x.device)), or keep it by "
        "register_buffer, which moves with the network",
    ),
    _cause(
        "missing inputs",
        r"missing (?:\d+|a) required (?:positional |keyword-only |)arguments?: (.+)",
        "forward wants inputs that were not given: {0}",
        "give them too: --input NAME=SHAPE once per input, in Python example_inputs=(args, kwargs)",
    ),
    _cause(
        "mixed types",
        r"must have the same dtype|[Ee]xpected .*(?:scalar type|dtype)|"
        r"Input type .* (?:weight|bias) type|not implemented for '(?:Half|BFloat16)'|"
        r"expected m1 and m2 to have the same dtype",
        "forward mixes types of numbers: inputs or constants are of another type than the weights",
        "convert within forward (x.to(self.weight.dtype)), or give inputs of the weights' type: "
        "--input 1x3x224x224:float16",
    ),
    _cause(
        "numpy",
        r"\.numpy\(\) is not supported|^in \S+ \(.*site-packages[/\\]numpy[/\\]|__array__",
        "forward computes with NumPy, which torch.export cannot see",
        "write it with torch's functions; what does not depend on the inputs can be computed "
        "in __init__",
    ),
    _cause(
        "unknown inputs",
        r"got an unexpected keyword argument ('\w+')$",
        "forward has no input {0}",
        "give inputs by the names in forward's signature",
    ),
    _cause(
        "text of values",
        r"FakeTensor\.__format__",
        "forward writes the value of a tensor into a text (a print, a log)",
        "leave it out where it is captured: if not torch.compiler.is_exporting()",
    ),
    _cause(
        "a kernel of its own",
        r"Cannot access data pointer|data_ptr|custom kernel",
        "forward calls a kernel that torch does not know (a C++, CUDA or Triton extension), or an "
        "autograd function that reads memory",
        "wrap it by torch.library.custom_op with a fake implementation, or use torch's own "
        "functions",
    ),
    _cause(
        "a tensor that is no buffer",
        r"fake tensor in the exported program constant's list|lifted_tensor",
        "forward changes a tensor that is no buffer, or one through .data",
        "keep it by register_buffer, and change it without .data",
    ),
    _cause(
        "gradients in forward",
        r"does not require grad and does not have a grad_fn",
        "forward computes gradients",
        "give a network without that part, or compute them outside of it",
    ),
    _cause(
        "functions as operands",
        r"(?:_higher_order_ops|nn[/\\]attention)[/\\]"
        r"(cond|while_loop|scan|associative_scan|map|flex_attention)\.py\)$",
        "forward calls {0}, which is given a function to run, and what that computes is not seen",
        "write it with plain operators where it is captured (if torch.compiler.is_exporting()): "
        "torch.where for a condition, a Python loop for a fixed number of steps, "
        "scaled_dot_product_attention with a mask",
    ),
    _cause(
        "function transforms",
        r"has no attribute 'constant'|^in (?:_flat_vmap|grad_impl|vjp|jvp) ",
        "forward uses torch.func (vmap, jacrev, …) in a way that torch.export does not know",
        "write that part with plain tensor operators",
    ),
    _cause(
        "compiled code",
        r"dynamo-optimized|torch\._dynamo",
        "a function within the network is compiled by torch.compile",
        "give the network with the function as it was before, or call "
        "torch.compiler.set_stance('force_eager') first",
    ),
    _cause(
        "branches on values",
        r"GuardOnDataDependent|data-dependent|Could not guard|unbacked|PendingUnbackedSymbol",
        "forward's branches, loops or sizes follow the values of tensors",
        "remove branches on tensor values from forward (torch.where computes both sides), or pass "
        "other inputs (--input)",
    ),
    _cause(
        "an operator without a shape",
        r"UnsupportedOperatorException: ([\w.:]+)|There was no fake impl[^:]*: ?([\w.:]*)|"
        r"Could not run '([\w.:]+)'",
        "an operator has no form that torch.export knows",
        "use another operator there, or tell its shapes by torch.library.register_fake",
    ),
)

COPIES = (
    (r"ScriptFunction", "use the Python function that was scripted: TorchScript cannot be copied"),
    (r"lock|thread|Condition|Semaphore", "keep locks and threads outside of the module"),
    (r"TextIOWrapper|BufferedReader|BufferedWriter|file", "keep open files outside of the module"),
    (r"generator|coroutine", "keep generators outside of the module"),
    (r"[Pp]rocess ?[Gg]roup", "give the module without its process group"),
    (r"Uninitialized", "run the network once on an example before it is given"),
)


def cause_of(error: BaseException) -> Cause | None:
    """Return the first cause of the table whose sign the exception bears, or None.

    The sign's groups are filled into its words.
    """
    text = "\n".join((f"{type(error).__name__}: {error}", *_passed(error.__traceback__)))
    for cause in CAUSES:
        if match := cause.sign.search(text):
            groups = [group or "" for group in match.groups()]
            what, step = cause.what.format(*groups), cause.next_step.format(*groups)
            return Cause(cause.name, cause.sign, what, step)
    return None


def not_captured(error: Exception, module: nn.Module) -> CompressorError:
    """Return the error to raise for a network that torch.export refused.

    Args:
        error: What torch.export raised.
        module: The network, in which the failing layer is looked for.
    """
    cause = cause_of(error)
    place = place_of(error, module)
    return CompressorError(
        "torch.export cannot capture this model" + (f": {cause.what}" if cause else ""),
        where=f"{place}: {first_line(error)}" if place else first_line(error),
        consequence="its channels cannot be analysed",
        next_step=cause.next_step
        if cause
        else "change that line so that torch.export.export(model, inputs, strict=False) works, or "
        "pass other inputs (--input)",
    )


def copying_hint(error: Exception) -> str:
    """Say what to do about a module that `copy.deepcopy` refuses."""
    for sign, hint in COPIES:
        if re.search(sign, str(error)):
            return hint
    return "make it deep-copyable (no locks, files or generators as attributes)"


def place_of(error: BaseException, module: nn.Module) -> str:
    """Return the innermost layer that was running, and the line of code in it that is not torch's.

    The text is "" where no layer is known.
    """
    paths = {id(layer): path for path, layer in module.named_modules()}
    layer = line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        holder = frame.f_locals.get("self")
        if id(holder) in paths and isinstance(holder, nn.Module):
            path = paths[id(holder)]
            layer = f"layer {path} ({type(holder).__name__})" if path else "the model itself"
        file = frame.f_code.co_filename
        if not file.startswith((LIBRARY, OURS, "<")):
            line = f"{Path(file).name}:{number}"
    return ", ".join(filter(None, (layer, line if layer else "")))


def first_line(error: BaseException) -> str:
    """Return the exception's type and its message's first line, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= LINE_LENGTH else text[: LINE_LENGTH - 1] + "…"


def _passed(trace: TracebackType | None) -> Iterator[str]:
    for frame, _ in traceback.walk_tb(trace):
        if not frame.f_code.co_filename.startswith(OURS):
            yield f"in {frame.f_code.co_name} ({frame.f_code.co_filename})"
