"""Read a pickle as data: which names it imports, calls and creates, without running it.

The scan follows the stack and the memo of the pickle machine with labels instead of objects. It
knows what a call is made on, which torch's own list of globals does not.
"""

import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

PARTIAL = "functools.partial"
REBUILD_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
REBUILD_PREFIX = "torch._utils._rebuild_"
# an instance attribute of such a name can be called while the pickle is still being read
SPECIAL_METHOD = re.compile(r"__(?!main__|builtin__)\w+__")


@dataclass(frozen=True)
class Name:
    """A global on the scan's stack, by its path `module.qualname`."""

    path: str


@dataclass(frozen=True)
class Made:
    """The label of an object on the scan's stack that a call of a global has made."""

    path: str


@dataclass
class PickleScan:
    """What a pickle would do if it were loaded.

    Attributes:
        names: Every global that it imports.
        called: Globals called with arguments of the pickle's choice.
        bound: Globals bound by `functools.partial`, to be called later.
        odd: What no honest `torch.save` writes, in words.
    """

    names: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)


def scan_pickle(stream: bytes | IO[bytes]) -> PickleScan:
    """Scan one pickle up to its STOP, without running it.

    Raises:
        ValueError: It is not a well-formed pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode, argument)
    except (IndexError, KeyError) as error:
        raise ValueError(f"malformed pickle: {error}") from error
    return machine.scan


class _Machine:
    def __init__(self) -> None:
        self.scan = PickleScan()
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        if isinstance(argument, str) and SPECIAL_METHOD.fullmatch(argument):
            self.scan.odd.append(f"sets {argument}")
        handler = HANDLERS.get(opcode.name)
        if handler is not None:
            handler(self, argument)
        else:
            self._by_signature(opcode, argument)

    def _by_signature(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        before = list(opcode.stack_before)
        if pickletools.markobject in before:
            self.pop_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.stack.pop()
        self.stack.extend(
            [argument if isinstance(argument, str) else None] * len(opcode.stack_after)
        )

    def pop_mark(self) -> tuple[Any, ...]:
        start = self.marks.pop()
        items = tuple(self.stack[start:])
        del self.stack[start:]
        return items

    def import_name(self, module: str, name: str) -> None:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.scan.names.add(f"{module}.{name}")
        self.stack.append(Name(f"{module}.{name}"))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if isinstance(name, str) and isinstance(module, str):
            self.import_name(module, name)
        else:
            self.scan.odd.append("imports a computed name")
            self.stack.append(None)

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.call(function, arguments)

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Name):
            self.scan.odd.append("calls an object that it has made")
            self.stack.append(None)
            return
        first = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if function.path == PARTIAL:
            self.bind(first)
        if function.path == REBUILD_SUBCLASS and not _is_rebuild(first):
            self.scan.odd.append("makes a tensor with a function of its own")
        self.scan.called.add(function.path)
        self.stack.append(Made(function.path))

    def bind(self, function: Any) -> None:
        if isinstance(function, Name):
            self.scan.bound.add(function.path)
        else:
            self.scan.odd.append("binds arguments to an object that it has made")

    def instantiate(self, _: Any) -> None:
        self.stack.pop()
        cls = self.stack.pop()
        if not isinstance(cls, Name):
            self.scan.odd.append("instantiates an object that it has made")
        self.stack.append(Made(cls.path) if isinstance(cls, Name) else None)

    def build(self, _: Any) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if instance == Made(PARTIAL):
            self.bind(state[0] if isinstance(state, tuple) and state else None)

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]


def _is_rebuild(value: Any) -> bool:
    return isinstance(value, Name) and value.path.startswith(REBUILD_PREFIX)


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return make


def _drop(count: int) -> Callable[[_Machine, Any], None]:
    def drop(machine: _Machine, _: Any) -> None:
        del machine.stack[-count:]

    return drop


def _drop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.import_name(module, name)


def _instance(machine: _Machine, argument: str) -> None:
    arguments = machine.pop_mark()
    _global(machine, argument)
    machine.call(machine.stack.pop(), arguments)


def _object(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.pop_mark()
    machine.call(function, tuple(arguments))


def _instantiate_with_keywords(machine: _Machine, _: Any) -> None:
    machine.stack.pop()
    machine.instantiate(None)


HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.instantiate,
    "NEWOBJ_EX": _instantiate_with_keywords,
    "BUILD": _Machine.build,
    "TUPLE": lambda machine, _: machine.stack.append(machine.pop_mark()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _drop(1),
    "SETITEM": _drop(2),
    "APPENDS": _drop_mark,
    "SETITEMS": _drop_mark,
    "ADDITEMS": _drop_mark,
    "POP_MARK": _drop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
}
