"""Check the texts inside a serialised program: which of them provably cannot run anything.

`torch.export` turns them into code: names and paths become source text, symbolic sizes and guards
go through `eval`, operators are looked up attribute by attribute from `torch`. So every text is
checked against what an honest export writes under its key; an unknown key gets the strictest check.
"""

import ast
import json
import keyword
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch

from compressor.loading.wording import words

IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
PATH = re.compile(r"""[^'"\\{}\x00-\x1f\x7f\u0085\u2028\u2029]*""")
WORD = re.compile(r"[\w.+\-@<=]*")
PLAIN_TEXT = re.compile(
    r"""[^'"\\{}\x00-\x1f]*"""
    r"""|Runtime assertion failed for expression [\w <>=+\-*/()%,|&~]* on node '\w+'"""
)
SYMPY_TEXT = re.compile(r"[A-Za-z_]\w*|[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")

SYMPY_FUNCTIONS = words(
    "Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs Eq Ne Lt Le Gt Ge Equality "
    "Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not floor ceiling "
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat "
    "TruncToInt RoundToInt RoundDecimal ToFloat Identity"
)
GUARD_METHODS = words("size stride storage_offset")
GUARD_FUNCTIONS = words("Max Min Mod FloorDiv PythonMod CleanDiv")
ARITHMETIC = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.Call, ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip

OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision|transformers)\.(\w+)\.(\w+)")
REGISTERING = {"torchvision": "torchvision", "transformers": "transformers.integrations.moe"}
FILE_OPERATORS = frozenset(["from_file"])
PLAIN_OPERATORS = (
    words(
        "eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv and_ or_ not_ lshift "
        "rshift getitem",
        under="_operator.",
    )
    | words("not int float ite max min sqrt sum", under="torch.sym_")
    | words("trunc ceil floor", under="math.")
    | words(
        "wrap_with_set_grad_enabled wrap_with_autocast cond while_loop map_impl scan "
        "associative_scan invoke_subgraph",
        under="torch.ops.higher_order.",
    )
)
TREE_TYPES = frozenset(
    [None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict",
     "collections.deque", "collections.namedtuple"]
)  # fmt: skip


def is_name(text: str) -> bool:
    """Return whether a text is an identifier as torch.fx makes them, or empty."""
    return not text or (bool(IDENTIFIER.fullmatch(text)) and not keyword.iskeyword(text))


def is_word(text: str) -> bool:
    """Return whether a text is a dotted path, version or device: no quotes, brackets or spaces."""
    return bool(WORD.fullmatch(text))


def is_path(text: str) -> bool:
    """Return whether a text can be the path of a tensor.

    What is no identifier in it becomes a text within double quotes (`getattr(layer,
    "a/b").weight`), which nothing in it may end.
    """
    return bool(PATH.fullmatch(text))


def is_plain_text(text: str) -> bool:
    """Return whether a text can be an operator's text argument, such as an einsum equation."""
    return bool(PLAIN_TEXT.fullmatch(text))


def is_operator(text: str) -> bool:
    """Return whether a text names an operator of ATen, torchvision or transformers, or arithmetic
    on sizes."""
    if text in PLAIN_OPERATORS:
        return True
    match = OPERATOR.fullmatch(text)
    if match is None or match[2] in FILE_OPERATORS:
        return False
    if match[1] in REGISTERING:
        import_module(REGISTERING[match[1]])
    found: Any = torch.ops
    for name in match.groups():
        found = getattr(found, name, None)
    return isinstance(found, torch._ops.OpOverload)


def is_size_expression(text: str) -> bool:
    """Return whether a text is arithmetic over symbols, in sympy's notation."""
    # `sympify` would evaluate anything else
    return text.isascii() and all(map(_is_sympy_node, _nodes(text)))


def is_guard(text: str) -> bool:
    """Return whether a text only compares sizes of the inputs; torch compiles it."""
    return text.isascii() and all(map(_is_guard_node, _nodes(text)))


def is_tree(text: str) -> bool:
    """Return whether a text nests inputs or outputs in standard containers with plain keys."""
    try:
        _, root = json.loads(text)
        return all(map(_is_plain_container, _tree_nodes(root)))
    except (ValueError, TypeError, KeyError):
        return False


# the key that a text stands under -> its check; a text under any other key must be a word
CHECKS: dict[str, Callable[[str], bool]] = {
    "name": is_name,
    **dict.fromkeys(["fqn", "parameter_name", "buffer_name", "tensor_constant_name"], is_path),
    "as_name": is_name,
    "forward_arg_names": is_name,
    "target": is_operator,
    "as_operator": is_operator,
    "expr_str": is_size_expression,
    "guards_code": is_guard,
    "in_spec": is_tree,
    "out_spec": is_tree,
    "as_string": is_plain_text,
    "as_strings": is_plain_text,
    # what torch keeps as text and never turns into code
    **dict.fromkeys(
        ["stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node"],
        lambda text: True,
    ),
}

PAYLOADS_BY_PATH = "config"
"""The key under which an archive lists the files of its tensors by the tensors' paths."""


def harmful_texts(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) for every text in a JSON document that is not provably harmless."""
    if isinstance(document, dict):
        for inner, value in document.items():
            if not (is_path if key == PAYLOADS_BY_PATH else is_word)(inner):
                yield key, inner
            yield from harmful_texts(value, inner)
    elif isinstance(document, list):
        for value in document:
            yield from harmful_texts(value, key)
    elif isinstance(document, str) and not CHECKS.get(key, is_word)(document):
        yield key, document


def _nodes(text: str) -> Iterator[ast.AST | None]:
    try:
        yield from ast.walk(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield None


def _is_sympy_node(node: ast.AST | None) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in SYMPY_FUNCTIONS
        case ast.Constant(value=str(text)):
            return bool(SYMPY_TEXT.fullmatch(text))
    return _is_arithmetic(node)


def _is_guard_node(node: ast.AST | None) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=name), args=[], keywords=[]):
            return name in GUARD_METHODS
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return name in GUARD_FUNCTIONS
        case ast.Attribute(attr=name):
            return name in GUARD_METHODS
        case ast.Constant(value=str(text)):
            return is_plain_text(text)
        case ast.Subscript():
            return True
    return _is_arithmetic(node)


def _is_arithmetic(node: ast.AST | None) -> bool:
    match node:
        case ast.Call():
            return False
        case ast.Constant(value=value):
            return isinstance(value, int | float)
    return isinstance(node, ARITHMETIC)


def _tree_nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node["children_spec"]:
        yield from _tree_nodes(child)


def _is_plain_container(node: Any) -> bool:
    kind, context = node["type"], node["context"]
    if isinstance(context, str) and kind != "collections.namedtuple":
        context = json.loads(context)
    keys = context if isinstance(context, list) else [context]
    return kind in TREE_TYPES and all(
        key is None or isinstance(key, int | float) or (isinstance(key, str) and is_word(key))
        for key in keys
    )
