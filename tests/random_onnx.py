"""Draw small ONNX graphs: operators with random attributes, in the spelling of several versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSETS = (9, 11, 13, 17, 18, 20, 21)
BATCH = 2
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass
class Drawing:
    """A graph that is being drawn: a chain of operators, each on what the one before computes.

    Attributes:
        draw: Hypothesis's.
        opset: The version of the operators.
        shape: The sizes of the last value, the batch included.
    """

    draw: Any
    opset: int
    shape: tuple[int, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    last: str = "x"

    def __post_init__(self) -> None:
        self.first = self.shape
        self.rng = np.random.default_rng(self.draw(st.integers(0, 1000)))

    # -- draws ------------------------------------------------------------------------------------

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def some(self, low: int, high: int, count: int) -> list[int]:
        return [self.number(low, high) for _ in range(count)]

    def axis(self, first: int = 0) -> int:
        """An axis, counted from either end."""
        axis = self.number(first, len(self.shape) - 1)
        return axis - len(self.shape) if self.draw(st.booleans()) else axis

    def axes(self, first: int = 1) -> list[int]:
        chosen = self.draw(st.sets(st.integers(first, len(self.shape) - 1), min_size=1))
        return sorted(a - len(self.shape) if self.draw(st.booleans()) else a for a in chosen)

    # -- values -----------------------------------------------------------------------------------

    def weight(self, *shape: int) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.held((self.rng.standard_normal(shape) / fan**0.5).astype(np.float32))

    def positive(self, *shape: int) -> str:
        return self.held(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def held(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def whole(self, *values: int) -> str:
        return self.held(np.array(values, np.int64))

    # -- nodes ------------------------------------------------------------------------------------

    def put(self, op: str, inputs: Sequence[str] = (), outputs: int = 1, **attributes: Any) -> Any:
        """Put a node behind the last value, which is its first input; return its outputs' names."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, [self.last, *inputs], names, **given))
        self.last = names[0]
        return names

    def put_on(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Put a node on values of one's own choice; return its output's name."""
        name = f"v{len(self.nodes)}_0"
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), [name], **given))
        self.last = name
        return name

    def by_version(self, op: str, since: int, outputs: int = 1, **given: Any) -> Any:
        """Put a node whose attribute is an input from a version on; others are attributes."""
        (name, values), *rest = given.items()
        attributes = dict(rest)
        if values is None:
            return self.put(op, outputs=outputs, **attributes)
        if self.opset >= since:
            return self.put(op, [self.whole(*values)], outputs=outputs, **attributes)
        return self.put(op, outputs=outputs, **{name: values}, **attributes)

    def infer(self) -> None:
        """Note the sizes of the last value; an impossible graph is no example."""
        try:
            inferred = shape_inference.infer_shapes(
                self.model(BATCH), strict_mode=True, data_prop=True
            )
        except Exception:
            assume(False)
        dims = inferred.graph.output[0].type.tensor_type.shape.dim
        shape = tuple(dim.dim_value for dim in dims)
        size = int(np.prod(shape))
        assume(0 < size < 20000 and all(shape))
        self.shape = shape

    def model(self, batch: Any = "n", rank: int | None = None) -> onnx.ModelProto:
        """The graph as a model."""
        given = helper.make_tensor_value_info("x", FLOAT, [batch, *self.first[1:]])
        sizes = None if rank is None else [None] * rank
        kind = INT64 if self.nodes[-1].op_type in ("ArgMax", "ArgMin") else FLOAT
        found = helper.make_tensor_value_info(self.last, kind, sizes)
        held = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        made = helper.make_graph(self.nodes, "drawn", [given], [found], held)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return model


Step = Callable[[Drawing], Any]


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(round(100 * low), round(100 * high)).map(lambda n: n / 100)


# -- element by element ---------------------------------------------------------------------------

SINCE = {"Celu": 12, "HardSwish": 14, "Mish": 18, "Gelu": 20, "Round": 11}
SMOOTH = (
    *("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Softplus", "Softsign", "Erf", "Sin", "Cos"),
    *("Atan", "HardSwish", "Mish", "Identity", "Selu"),
)
STEPPED = ("Floor", "Ceil", "Sign", "Round")
WITH_ALPHA = ("Elu", "LeakyRelu", "Celu", "ThresholdedRelu")


def unary(g: Drawing, among: Sequence[str] = SMOOTH) -> None:
    g.put(g.one_of(*(op for op in among if SINCE.get(op, 0) <= g.opset)))


def stepped(g: Drawing) -> None:
    unary(g, STEPPED)


def with_alpha(g: Drawing) -> None:
    op = g.one_of(*(op for op in WITH_ALPHA if SINCE.get(op, 10) <= max(10, g.opset)))
    assume(SINCE.get(op, 0) <= g.opset and not (op == "ThresholdedRelu" and g.opset < 10))
    g.put(op, alpha=g.draw(st.none() | floats(0.1, 2.0)))


def hard(g: Drawing) -> None:
    g.put("HardSigmoid", alpha=g.draw(st.none() | floats(0.1, 0.5)), beta=g.draw(floats(0, 1)))


def gelu(g: Drawing) -> None:
    assume(g.opset >= 20)
    g.put("Gelu", approximate=g.one_of("none", "tanh", None))


def shrink(g: Drawing) -> None:
    g.put("Shrink", lambd=g.draw(st.none() | floats(0, 1)), bias=g.draw(st.none() | floats(-1, 1)))


def clip(g: Drawing) -> None:
    low, high = g.draw(st.none() | floats(-1, 0)), g.draw(st.none() | floats(0, 6))
    if g.opset < 11:
        g.put("Clip", min=low, max=high)
        return
    g.put("Clip", ["" if v is None else g.held(np.float32(v)) for v in (low, high)])


def binary(g: Drawing) -> None:
    op = g.one_of("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")
    other = g.one_of(*broadcasts(g.shape))
    name = g.last if g.number(0, 9) == 0 else g.positive(*other)
    if g.draw(st.booleans()):
        g.put(op, [name])
    else:
        g.put_on(op, [name, g.last])


def broadcasts(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes that are broadcast with another, whose batch they leave free."""
    rest = tuple(shape[1:])
    found = [(), (1,), rest[-1:], (1, *rest)] if rest else [(), (1,)]
    if len(shape) > 2:
        found += [(shape[1], *[1] * (len(shape) - 2)), (1, *rest[:-1], 1), rest]
    return found


def powered(g: Drawing) -> None:
    g.put("Abs")
    op = g.one_of("Pow", "Sqrt", "Log", "Reciprocal", "Exp")
    if op == "Pow":
        g.put(op, [g.held(np.float32(g.one_of(2, 3, 0.5, 1)))])
    elif op == "Exp":
        g.put("Tanh")
        g.put(op)
    else:
        g.put("Add", [g.held(np.float32(0.5))])
        g.put(op)


def prelu(g: Drawing) -> None:
    g.put("PRelu", [g.positive(*g.one_of(*broadcasts(g.shape)))])


def chosen(g: Drawing) -> None:
    before = g.last
    g.put(g.one_of("Greater", "Less"), [g.held(np.float32(0.1))])
    flags = g.last
    choices = [before, g.positive(*g.one_of(*broadcasts(g.shape)))]
    g.put_on("Where", [flags, *(choices if g.draw(st.booleans()) else choices[::-1])])


def modulo(g: Drawing) -> None:
    assume(g.opset >= 10)
    g.put("Mod", [g.held(np.float32(0.75))], fmod=1)


# -- windows --------------------------------------------------------------------------------------


def _sides(g: Drawing) -> int:
    assume(3 <= len(g.shape) <= 5)
    return len(g.shape) - 2


def _window(g: Drawing, kernel: Sequence[int], *, half: bool = False) -> dict[str, Any]:
    """Draw strides and padding, which may be left to the runtime."""
    sides = len(kernel)
    strides = g.draw(st.none() | st.just(g.some(1, 2, sides)))
    way = g.one_of("pads", "pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID")
    if way == "none":
        return {"strides": strides}
    if way != "pads":
        return {"strides": strides, "auto_pad": way}
    most = [k // 2 if half else k - 1 for k in kernel]
    begin = [g.number(0, m) for m in most]
    end = begin if g.draw(st.booleans()) else [g.number(0, m) for m in most]
    return {"strides": strides, "pads": begin + end}


def conv(g: Drawing) -> None:
    sides = _sides(g)
    kernel = g.some(1, 3, sides)
    groups = g.one_of(*(n for n in (1, 1, 2, g.shape[1]) if g.shape[1] % n == 0))
    out = groups * g.number(1, max(1, 8 // groups))
    window = _window(g, kernel)
    if "auto_pad" not in window:
        window["dilations"] = g.draw(st.none() | st.just(g.some(1, 2, sides)))
    bias = [g.weight(out)] if g.draw(st.booleans()) else []
    window |= {"kernel_shape": g.one_of(None, kernel), "group": g.one_of(None, 1)}
    if groups > 1:
        window["group"] = groups
    g.put("Conv", [g.weight(out, g.shape[1] // groups, *kernel), *bias], **window)


def conv_transposed(g: Drawing) -> None:
    sides = _sides(g)
    kernel = g.some(2, 3, sides)
    groups = g.one_of(*(n for n in (1, 1, 2) if g.shape[1] % n == 0))
    window = _window(g, kernel)
    if "auto_pad" not in window:
        window["dilations"] = g.draw(st.none() | st.just(g.some(1, 2, sides)))
        if window["strides"] is not None and g.draw(st.booleans()):
            window["output_padding"] = [g.number(0, s - 1) for s in window["strides"]]
    width = g.number(1, 4)
    bias = [g.weight(width * groups)] if g.draw(st.booleans()) else []
    weight = g.weight(g.shape[1], width, *kernel)
    g.put("ConvTranspose", [weight, *bias], group=groups, **window)


def pool(g: Drawing) -> None:
    sides = _sides(g)
    kernel = g.some(1, 3, sides)
    op = g.one_of("MaxPool", "AveragePool", "LpPool")
    window = _window(g, kernel)
    if op == "MaxPool" and g.opset >= 10 and "auto_pad" not in window:
        window["dilations"] = g.draw(st.none() | st.just(g.some(1, 2, sides)))
    if op == "AveragePool":
        window["count_include_pad"] = g.one_of(None, 0, 1)
    if op == "LpPool":
        window["p"] = g.one_of(None, 1, 2, 3)
    if g.opset >= 10 and "auto_pad" not in window and (op != "LpPool" or g.opset >= 18):
        window["ceil_mode"] = g.one_of(None, 0, 1)
    g.put(op, kernel_shape=kernel, **window)


def pool_all(g: Drawing) -> None:
    _sides(g)
    g.put(g.one_of("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))


# -- norms and shares -----------------------------------------------------------------------------


def batch_norm(g: Drawing) -> None:
    assume(len(g.shape) >= 2)
    c = g.shape[1]
    held = [g.positive(c), g.weight(c), g.weight(c), g.positive(c)]
    g.put("BatchNormalization", held, epsilon=g.one_of(None, 1e-3))


def instance_norm(g: Drawing) -> None:
    assume(len(g.shape) >= 3 and np.prod(g.shape[2:]) > 3)
    c = g.shape[1]
    g.put("InstanceNormalization", [g.positive(c), g.weight(c)], epsilon=g.one_of(None, 1e-3))


def layer_norm(g: Drawing) -> None:
    assume(g.opset >= 17 and len(g.shape) >= 2)
    axis = g.axis(1)
    of = g.shape[axis % len(g.shape) :]
    assume(np.prod(of) > 3)
    bias = [g.weight(*of)] if g.draw(st.booleans()) else []
    g.put("LayerNormalization", [g.positive(*of), *bias], axis=axis)


def group_norm(g: Drawing) -> None:
    assume(g.opset >= 21 and len(g.shape) >= 3)
    c = g.shape[1]
    groups = g.one_of(*(n for n in (1, 2, c) if c % n == 0))
    assume(np.prod(g.shape[1:]) // groups > 3)
    g.put("GroupNormalization", [g.positive(c), g.weight(c)], num_groups=groups)


def other_norm(g: Drawing) -> None:
    op = g.one_of("LRN", "LpNormalization", "MeanVarianceNormalization")
    if op == "LRN":
        assume(len(g.shape) >= 3)
        g.put(op, size=g.number(1, 5), alpha=g.one_of(None, 0.5), bias=g.one_of(None, 2.0))
    elif op == "LpNormalization":
        g.put(op, axis=g.axis(1), p=g.one_of(None, 1, 2))
    else:
        assume(len(g.shape) == 4 and np.prod(g.shape[2:]) > 3)
        g.put(op, axes=g.one_of(None, [2, 3], [0, 2, 3], [1]))


def shares(g: Drawing) -> None:
    g.put(g.one_of("Softmax", "LogSoftmax"), axis=g.draw(st.none() | st.just(g.axis(1))))


def hardmax(g: Drawing) -> None:
    g.put("Hardmax", axis=g.draw(st.none() | st.just(g.axis(1))))


# -- products -------------------------------------------------------------------------------------


def product(g: Drawing) -> None:
    out = g.number(1, 8)
    g.put("MatMul", [g.weight(g.shape[-1], out)])
    if g.draw(st.booleans()):
        bias = g.weight(out)
        inputs = [g.last, bias] if g.draw(st.booleans()) else [bias, g.last]
        g.put_on("Add", inputs)


def gemm(g: Drawing) -> None:
    assume(len(g.shape) == 2)
    out, turned = g.number(1, 8), g.one_of(None, 0, 1)
    weight = g.weight(*((out, g.shape[1]) if turned else (g.shape[1], out)))
    bias = g.one_of(None, (out,), (1, out), (1,), ())
    inputs = [weight] if bias is None and g.opset >= 11 else [weight, g.weight(*(bias or (1,)))]
    factors = {"alpha": g.one_of(None, 1.0, 0.5), "beta": g.one_of(None, 1.0, 0.25)}
    g.put("Gemm", inputs, transB=turned, **factors)


def by_letters(g: Drawing) -> None:
    assume(g.opset >= 12 and 2 <= len(g.shape) <= 4)
    letters = "nabc"[: len(g.shape)]
    at = g.number(1, len(letters) - 1)
    weight = g.weight(g.shape[at], 5)
    out = letters.replace(letters[at], "z")
    g.put("Einsum", [weight], equation=f"{letters},{letters[at]}z->{out}")


# -- places ---------------------------------------------------------------------------------------


def reshape(g: Drawing) -> None:
    rest = list(g.shape[1:])
    ways = [[0, -1], [-1, *rest], [0, *rest, 1], [-1, int(np.prod(rest))]]
    if len(rest) > 1:
        ways += [[0, 0, -1], [0, -1, rest[-1]], [-1, rest[0] * rest[1], *rest[2:]]]
    if rest and rest[0] % 2 == 0:
        ways += [[0, 2, rest[0] // 2, *rest[1:]], [0, rest[0] // 2, 2, *rest[1:]]]
    g.put("Reshape", [g.whole(*g.one_of(*ways))])


def transpose(g: Drawing) -> None:
    rest = g.draw(st.permutations(range(1, len(g.shape))))
    g.put("Transpose", perm=[0, *rest])


def flatten(g: Drawing) -> None:
    g.put("Flatten", axis=g.one_of(None, 1, *([1 - len(g.shape)] if g.opset >= 11 else [])))


def flatten_anywhere(g: Drawing) -> None:
    g.put("Flatten", axis=g.number(0, len(g.shape)))


def squeeze(g: Drawing) -> None:
    g.by_version("Unsqueeze", 13, axes=[g.number(1, len(g.shape))])
    g.infer()
    ones = [i for i, size in enumerate(g.shape) if size == 1 and i > 0]
    if len(ones) > 1:
        g.by_version("Squeeze", 13, axes=[g.one_of(*ones)])


def cut(g: Drawing, by: Sequence[int] = (1, 1, -1)) -> None:
    axes = g.axes()
    if g.opset < 11:
        axes = [a % len(g.shape) for a in axes]
    sizes = [g.shape[a] for a in axes]
    starts, ends, steps = [], [], []
    for size in sizes:
        step = g.one_of(*by) if g.opset >= 11 else 1
        low, high = g.number(0, size - 1), g.number(0, size)
        start, end = (low, max(high, low + 1)) if step > 0 else (low, low - high - 1)
        if step > 0:
            start = start - size if g.draw(st.booleans()) else start
            end = g.one_of(end, end - size if end < size else 2**31 - 1, end)
        else:
            end = end - size if end >= 0 else -(2**31) + 1
            start = g.one_of(start, start - size)
        starts.append(start), ends.append(end), steps.append(step)
    if g.opset < 10:
        g.put("Slice", starts=starts, ends=ends, axes=axes)
        return
    more = [g.whole(*steps)] if any(s != 1 for s in steps) or g.draw(st.booleans()) else []
    g.put("Slice", [g.whole(*starts), g.whole(*ends), g.whole(*axes), *more])


def cut_by_steps(g: Drawing) -> None:
    cut(g, (2, -2, 3))


def split(g: Drawing) -> None:
    axis = g.axis(1) if g.opset >= 11 else g.number(1, len(g.shape) - 1)
    size = g.shape[axis]
    assume(size > 1)
    first = g.number(1, size - 1)
    names = g.by_version("Split", 13, outputs=2, split=[first, size - first], axis=axis)
    if g.draw(st.booleans()):
        g.put_on("Concat", names[::-1], axis=axis if g.opset >= 11 else axis % len(g.shape))


def split_evenly(g: Drawing) -> None:
    axis = g.number(1, len(g.shape) - 1)
    assume(g.shape[axis] % 2 == 0 or g.opset >= 18)
    more = {"num_outputs": 2} if g.opset >= 18 else {}
    g.last = g.one_of(*g.by_version("Split", 13, outputs=2, split=None, axis=axis, **more))


def join(g: Drawing) -> None:
    before = g.last
    g.put(g.one_of("Relu", "Neg"))
    axis = g.axis(1) if g.opset >= 11 else g.number(1, len(g.shape) - 1)
    g.put_on("Concat", g.one_of([before, g.last], [g.last, before, before]), axis=axis)


def added(g: Drawing) -> None:
    before = g.last
    g.put(g.one_of("Relu", "Sigmoid", "Tanh"))
    g.put_on(g.one_of("Add", "Mul", "Max"), [before, g.last])


def pad(g: Drawing) -> None:
    modes = ["constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else [])]
    mode, rank = g.one_of(None, *modes), len(g.shape)
    begin, end = ([0] + [g.number(0, 2) for _ in range(rank - 1)] for _ in range(2))
    if mode not in (None, "constant"):
        most = [0, *(min(2, n - 1) for n in g.shape[1:])]
        begin, end = ([min(w, m) for w, m in zip(each, most, strict=True)] for each in (begin, end))
    value = g.draw(st.none() | floats(-1, 1)) if mode in (None, "constant") else None
    if g.opset < 11:
        g.put("Pad", mode=mode, pads=begin + end, value=value)
        return
    if g.opset >= 18 and g.draw(st.booleans()):
        axes = g.axes()
        begin, end = ([each[a] for a in axes] for each in (begin, end))
        filled = "" if value is None else g.held(np.float32(value))
        g.put("Pad", [g.whole(*begin, *end), filled, g.whole(*axes)], mode=mode)
        return
    filled = [] if value is None else [g.held(np.float32(value))]
    g.put("Pad", [g.whole(*begin, *end), *filled], mode=mode)


def tile(g: Drawing) -> None:
    g.put("Tile", [g.whole(1, *g.some(1, 2, len(g.shape) - 1))])


def expand(g: Drawing) -> None:
    g.by_version("Unsqueeze", 13, axes=[1])
    g.put("Expand", [g.whole(1, g.number(1, 3), *g.shape[1:])])


def gather(g: Drawing) -> None:
    axis = g.axis(1)
    size, low = g.shape[axis], -g.shape[axis] if g.opset >= 11 else 0
    way = g.one_of("one", "row", "row", "run", "table")
    if way == "one":
        index = np.array(g.number(low, size - 1))
    elif way == "run":
        first = g.number(0, size - 1)
        index = np.arange(first, g.number(first, size - 1) + 1)
    elif way == "table":
        index = np.array([g.some(low, size - 1, 2) for _ in range(2)])
    else:
        index = np.array(g.some(low, size - 1, g.number(1, 4)))
    g.put("Gather", [g.held(index.astype(np.int64))], axis=axis)


def blocks(g: Drawing) -> None:
    assume(len(g.shape) == 4)
    mode = g.one_of(None, "DCR", "CRD") if g.opset >= 11 else None
    if g.shape[1] % 4 == 0 and g.draw(st.booleans()):
        g.put("DepthToSpace", blocksize=2, mode=mode)
        return
    assume(g.shape[2] % 2 == 0 == g.shape[3] % 2)
    g.put("SpaceToDepth", blocksize=2)


def cumulate(g: Drawing) -> None:
    assume(g.opset >= 11)
    flags = {"exclusive": g.one_of(None, 0, 1), "reverse": g.one_of(None, 0, 1)}
    g.put("CumSum", [g.held(np.array(g.axis(1)))], **flags)


def triangle(g: Drawing) -> None:
    assume(g.opset >= 14 and len(g.shape) >= 3)
    offset = [] if g.draw(st.booleans()) else [g.held(np.array(g.number(-2, 2)))]
    g.put("Trilu", offset, upper=g.one_of(None, 0, 1))


def largest(g: Drawing) -> None:
    axis = g.axis(1) if g.opset >= 11 else g.number(1, len(g.shape) - 1)
    count = g.number(1, g.shape[axis])
    if g.opset < 10:
        g.put("TopK", outputs=2, k=count, axis=axis)
        return
    flags = {"largest": g.one_of(None, 0, 1)} if g.opset >= 11 else {}
    g.put("TopK", [g.whole(count)], outputs=2, axis=axis, **flags)


def place_of_largest(g: Drawing) -> None:
    flags = {"select_last_index": g.one_of(None, 0, 1)} if g.opset >= 12 else {}
    axis = g.axis() if g.opset >= 11 else g.number(0, len(g.shape) - 1)
    axis = g.one_of(None, axis)
    g.put(g.one_of("ArgMax", "ArgMin"), axis=axis, keepdims=g.one_of(None, 0, 1), **flags)


# -- sums -----------------------------------------------------------------------------------------

REDUCTIONS = ("Mean", "Sum", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod")


def reduce(g: Drawing) -> None:
    kind = g.one_of(*REDUCTIONS)
    since = 13 if kind == "Sum" else 18
    axes = g.axes() if g.opset >= 11 else [a % len(g.shape) for a in g.axes()]
    keep = g.one_of(None, 0, 1) if len(axes) < len(g.shape) - 1 else g.one_of(None, 1)
    g.by_version(f"Reduce{kind}", since, axes=axes, keepdims=keep)


def reduce_all(g: Drawing) -> None:
    kind = g.one_of(*REDUCTIONS)
    more = {"noop_with_empty_axes": g.one_of(None, 0, 1)} if g.opset >= 18 else {}
    g.put(f"Reduce{kind}", keepdims=g.one_of(None, 0, 1), **more)


# -- images ---------------------------------------------------------------------------------------


def resize(g: Drawing) -> None:
    assume(len(g.shape) in (3, 4))
    sides = len(g.shape) - 2
    factors = [g.one_of(0.5, 0.6, 1.0, 1.5, 2.0, 3.0) for _ in range(sides)]
    scales = np.array([1, 1, *factors], np.float32)
    if g.opset < 10:
        g.put("Upsample", [g.held(np.maximum(scales, 1))], mode=g.one_of("nearest", "linear"))
        return
    if g.opset < 11:
        return
    mode = g.one_of("nearest", "linear", *(["cubic"] if sides == 2 else []))
    ways = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
    ways += ["half_pixel_symmetric"] if g.opset >= 19 else []
    flags = {"mode": mode, "coordinate_transformation_mode": g.one_of(None, *ways)}
    if mode == "nearest":
        roundings = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        flags["nearest_mode"] = g.one_of(None, *roundings)
    if mode == "cubic":
        flags["cubic_coeff_a"] = g.one_of(None, -0.5)
    if g.opset >= 18 and g.draw(st.booleans()):
        sizes = [max(1, int(f * n)) for f, n in zip(factors, g.shape[2:], strict=True)]
        g.put("Resize", ["", "", g.whole(*sizes)], axes=list(range(2, sides + 2)), **flags)
        return
    empty = "" if g.opset >= 13 else g.held(np.zeros(0, np.float32))
    g.put("Resize", [empty, g.held(scales)], **flags)


# -- tables ---------------------------------------------------------------------------------------

CHAINED: tuple[Step, ...] = (
    *(unary, with_alpha, hard, clip, binary, powered, prelu, conv, conv, conv, conv_transposed),
    *(pool, pool_all, batch_norm, batch_norm, instance_norm, layer_norm, group_norm, other_norm),
    *(shares, product, product, gemm, by_letters, reshape, transpose, flatten, squeeze, cut),
    *(split, join, added, pad, tile, expand, gather, blocks, cumulate, reduce, resize, gelu),
)
"""Operators of which several follow one another: they leave the batch where it is, and rounding
changes them little."""

ALONE: tuple[Step, ...] = (
    *CHAINED,
    *(stepped, shrink, chosen, modulo, hardmax, flatten_anywhere, triangle, largest),
    *(place_of_largest, reduce_all, cut_by_steps, split_evenly),
)
"""All operators."""

SHAPES = ((BATCH, 4, 6, 5), (BATCH, 6, 8), (BATCH, 8), (BATCH, 4, 7, 7), (BATCH, 2, 3, 4, 4))


@st.composite
def alone(draw: Any) -> Drawing:
    """One operator, on an input of any rank."""
    g = Drawing(draw, draw(st.sampled_from(OPSETS)), draw(st.sampled_from(SHAPES)))
    draw(st.sampled_from(ALONE))(g)
    g.infer()
    return g


@st.composite
def chains(draw: Any, most: int = 5) -> Drawing:
    """A layer with a weight, some operators, and another such layer at the end."""
    g = Drawing(draw, draw(st.sampled_from(OPSETS)), draw(st.sampled_from(SHAPES)))
    _layer(g)
    for _ in range(draw(st.integers(1, most))):
        draw(st.sampled_from(CHAINED))(g)
        g.infer()
        assume(len(g.shape) > 1)
    _layer(g)
    return g


def _layer(g: Drawing) -> None:
    """Put a convolution or a product whose outputs are eight."""
    if 3 <= len(g.shape) <= 5:
        sides = len(g.shape) - 2
        kernel = [min(3, n) for n in g.shape[2:]]
        g.put("Conv", [g.weight(8, g.shape[1], *kernel)], pads=[0] * 2 * sides)
    else:
        g.put("MatMul", [g.weight(g.shape[-1], 8)])
    g.infer()
