"""A reader of pickles that calls nothing but what its vocabulary offers.

``pickle.Unpickler`` with a restricted ``find_class`` still calls any callable *object* on its stack, appends to any
object with ``append`` and sets attributes of classes and functions. This one interprets the opcodes of
``pickletools`` on a stack of its own: a call reaches a `Global` of the vocabulary or is refused, and only plain
containers are filled.
"""

from __future__ import annotations

import pickletools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, ClassVar, Protocol


class Refused(Exception):
    """A pickle asks for something that its vocabulary does not offer: what, and what to do about it."""

    def __init__(self, what: str, remedy: str = "pass --trust if you trust its author") -> None:
        super().__init__(_printable(what))
        self.remedy = remedy


class Malformed(Exception):
    """Bytes that are no pickle, or one that was damaged."""

    def __init__(self, what: str) -> None:
        super().__init__(_printable(what))


def _printable(text: str) -> str:
    """One short line of ``text``, which may hold whatever a file holds."""
    return "".join(one if one.isprintable() else " " for one in text)[:240]


@dataclass(frozen=True, kw_only=True, eq=False)
class Global:
    """What a name in a pickle stands for.

    Attributes:
        name: ``module.attribute``.
        call: what REDUCE calls; None where the name may only be restored.
        new: what NEWOBJ calls; None where the name may only be called.
        kind: the class behind the name, where getattr may look at it.
    """

    name: str
    call: Callable[..., Any] | None = None
    new: Callable[..., Any] | None = None
    kind: type | None = None


class Vocabulary(Protocol):
    """What a pickle may name, how its objects get their state, and what lies outside it."""

    def find(self, module: str, name: str) -> Any:
        """A `Global`, or a plain value such as a dtype. Raises Refused."""

    def build(self, instance: Any, state: Any) -> None:
        """Give ``instance`` its state. Raises Refused."""

    def persistent(self, key: Any) -> Any:
        """What the persistent id ``key`` stands for. Raises Refused."""


# What the opcodes of a damaged pickle lead to; the reader itself calls no code that could raise anything else.
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_LISTS, _DICTS, _SETS = (list, deque), (dict, OrderedDict, Counter), (set,)


class PickleReader:
    """One pickle, read from where ``file`` stands to its STOP; protocols 0 to 5."""

    def __init__(self, file: IO[bytes], vocabulary: Vocabulary) -> None:
        self.file, self.vocabulary = file, vocabulary
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object.

        Raises:
            Refused: a name, call or state outside the vocabulary.
            Malformed: no pickle, or a damaged one.
        """
        try:
            for opcode, argument, _ in pickletools.genops(self.file):
                self._step(opcode.name, argument)
            return self.stack.pop()
        except (Refused, Malformed):
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise Malformed(f"malformed pickle: {error}") from error

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in self.HANDLERS:
            self.HANDLERS[name](self, argument)
        elif name not in {"PROTO", "FRAME", "STOP"}:
            raise Malformed(f"malformed pickle: opcode {name}")

    def _mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _collect(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self._since_mark()
        self.stack.append(kind(items))

    def _tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Malformed("malformed pickle: the stack is empty")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _append(self, _: None) -> None:
        item = self.stack.pop()
        self._target(_LISTS).append(item)

    def _appends(self, _: None) -> None:
        items = self._since_mark()
        self._target(_LISTS).extend(items)

    def _set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._target(_DICTS)[key] = value

    def _set_items(self, _: None) -> None:
        items = self._since_mark()
        self._target(_DICTS).update(_pairs(items))

    def _add_items(self, _: None) -> None:
        items = self._since_mark()
        self._target(_SETS).update(items)

    def _target(self, kinds: tuple[type, ...]) -> Any:
        """The container on top of the stack, which a pickle may fill; a subclass could run code when filled."""
        if type(self.stack[-1]) not in kinds:
            raise Refused(f"it fills a {type(self.stack[-1]).__name__} like a {kinds[0].__name__}")
        return self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _duplicate(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        self.stack.append(self.vocabulary.find(_PYTHON_2.get(module, module), name))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise Malformed("malformed pickle: a name that is no text")
        self._global(f"{module} {name}")

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise Refused(f"it calls a {type(function).__name__}")
        if function.call is None:
            raise Refused(f"it calls {function.name} instead of restoring one")
        self.stack.append(function.call(*arguments))

    def _new_object(self, _: None) -> None:
        arguments = self.stack.pop()
        self._new(arguments, {})

    def _new_object_with_keywords(self, _: None) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self._new(arguments, keywords)

    def _new(self, arguments: Any, keywords: Any) -> None:
        kind = self.stack.pop()
        if not isinstance(kind, Global) or kind.new is None:
            raise Refused(f"it makes an object of {getattr(kind, 'name', type(kind).__name__)}, which is no class")
        self.stack.append(kind.new(*arguments, **keywords))

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        self.vocabulary.build(self.stack[-1], state)

    def _persistent(self, _: None) -> None:
        self.stack.append(self.vocabulary.persistent(self.stack.pop()))

    HANDLERS: ClassVar[dict[str, Callable[[PickleReader, Any], None]]] = {
        "MARK": _mark,
        "TUPLE": lambda reader, _: reader._collect(tuple),
        "LIST": lambda reader, _: reader._collect(list),
        "DICT": lambda reader, _: reader._collect(_pairs),
        "FROZENSET": lambda reader, _: reader._collect(frozenset),
        "TUPLE1": lambda reader, _: reader._tuple_of(1),
        "TUPLE2": lambda reader, _: reader._tuple_of(2),
        "TUPLE3": lambda reader, _: reader._tuple_of(3),
        "APPEND": _append,
        "APPENDS": _appends,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "ADDITEMS": _add_items,
        "PUT": _put,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "MEMOIZE": _memoize,
        "GET": _get,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "POP": _pop,
        "POP_MARK": _pop_mark,
        "DUP": _duplicate,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "NEWOBJ": _new_object,
        "NEWOBJ_EX": _new_object_with_keywords,
        "BUILD": _build,
        "BINPERSID": _persistent,
    }


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
