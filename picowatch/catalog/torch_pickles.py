"""Reads the pickles inside of torch's files without running any: values and tensors, no code.

`pickletools.genops` of the standard library splits a pickle into its instructions. Those that
torch.save writes are followed here, on plain values. Calls are looked up in a small table: none of
the names in a pickle is imported. Any other name or instruction is refused.

Format: torch/serialization.py and torch/_utils.py, `_rebuild_tensor_v2` and others.
"""

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import IO, Any

from picowatch.errors import ModelRefused

# Real ones have some hundred kilobytes. Each byte may be an instruction.
MAX_PICKLE_BYTES = 16_000_000
_MAX_SIDES = 16
_MAX_NUMBER = 2**53

# torch's names of types, as storages and as such, by safetensors' names; bytes of a number.
ITEM_BYTES = dict.fromkeys(("F64", "I64", "U64"), 8)
ITEM_BYTES |= dict.fromkeys(("F32", "I32", "U32"), 4)
ITEM_BYTES |= dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)
ITEM_BYTES |= dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1)
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
_TYPES = {f"{word}{bits}": f"{letter}{bits}"
          for word, letter in (("float", "F"), ("int", "I"), ("uint", "U"))
          for bits in (8, 16, 32, 64) if (word, bits) != ("float", 8)}  # fmt: skip
_TYPES |= {"bfloat16": "BF16", "bool": "BOOL"}
_TYPES |= {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
# What trainers write beside weights: numbers of steps, settings, callbacks. Their names become
# values that mean nothing.
_IGNORED = {
    *("numpy", "pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "argparse"),
    *("_codecs", "pathlib"),
}
_IGNORED_NAMES = {"torch device", "builtins set", "__builtin__ set"}


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers that tensors view: its key in the file, their type, and how many there are."""

    key: str
    type: str
    numbers: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, within its bounds; offset and strides count numbers of the type."""

    storage: Storage
    type: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.count * ITEM_BYTES[self.type]

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers stand one after the other."""
        expected = 1
        for side, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if side != 1 and stride != expected:
                return False
            expected *= side
        return True


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module} {self.name}"


class _Ignored:
    """A value that means nothing here."""


_NOTHING = _Ignored()
_MARK = object()


class Limited:
    """A file that gives no more than so many bytes, and no more at once than there are."""

    def __init__(self, file: IO[bytes], most: int = MAX_PICKLE_BYTES) -> None:
        self._file = file
        self._left = most

    def read(self, size: int) -> bytes:
        """Read as a file does, but never what is not there."""
        if size > self._left:
            raise ModelRefused("is not a model: its list of tensors is too long, or cut off.")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        """Read a line as a file does."""
        line = self._file.readline(min(self._left, 10_000))
        self._left -= len(line)
        return line


def read_pickle(file: Limited, storages: dict[str, Storage] | None = None) -> Any:
    """The values of one pickle; ModelRefused for what torch.save does not write.

    Dictionaries keep the entries whose keys are texts: others name no weights. All storages that
    it names are added to `storages`.
    """
    reader = _Reader({} if storages is None else storages)
    try:
        for instruction, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            if instruction.name == "STOP":
                return reader.pop()
            reader.follow(instruction.name, argument)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, UnicodeError) as error:
        raise ModelRefused("is damaged: its list of tensors is no pickle of torch's.") from error
    raise ModelRefused("is damaged: its list of tensors does not end.")


class _Reader:
    """A stack and what is remembered, as the pickle module's documentation describes them."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._remembered: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Do what one instruction says."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _RESULTS:
            self._stack.append(_RESULTS[name](self))
        elif name in _CHANGES:
            _CHANGES[name](self)
        elif name in ("GLOBAL", "INST"):
            arguments = self._to_mark() if name == "INST" else None
            found = _known(*argument.split(" ", 1))
            self._stack.append(found if arguments is None else _called(found, tuple(arguments)))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._remembered[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._remembered[argument])
        elif name not in ("PROTO", "FRAME"):
            raise ModelRefused(
                f"contains more than numbers: the pickle instruction {name}, which no file of "
                "weights needs.",
                _NOT_RUN,
            )

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark is no value")
        return value

    def _to_mark(self) -> list[Any]:
        """Everything above the last mark, which goes with it."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _memoize(self) -> None:
        self._remembered[len(self._remembered)] = self._stack[-1]

    def _last(self, count: int) -> tuple[Any, ...]:
        """The last values in their order."""
        return tuple([self.pop() for _ in range(count)][::-1])

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)
        elif self._stack[-1] is not _NOTHING:
            raise ValueError("no list")

    def _put(self, pairs: Sequence[Any]) -> None:
        target = self._stack[-1]
        if target is not _NOTHING:
            if not isinstance(target, dict):
                raise ValueError("no dictionary")
            target.update(_named(pairs))

    def _global(self) -> Any:
        module, name = self._last(2)
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("names are texts")
        return _known(module, name)

    def _call(self) -> Any:
        function, arguments = self._last(2)
        if not isinstance(arguments, tuple):
            raise ValueError("arguments are a tuple")
        return _called(function, arguments)

    def _call_marked(self) -> Any:
        function, *arguments = self._to_mark()
        return _called(function, tuple(arguments))

    def _call_named(self) -> Any:
        self.pop()
        return self._call()

    def _build(self) -> None:
        """Attributes, such as the versions of a state dict's modules; a ParameterDict's weights."""
        attributes, target = self.pop(), self._stack[-1]
        if not isinstance(target, dict | _Ignored | Tensor):
            raise ValueError("no object with attributes")
        parameters = attributes.get("_parameters") if isinstance(attributes, dict) else None
        if isinstance(target, dict) and isinstance(parameters, dict):
            target.update(parameters)
            parameters.clear()  # a dictionary that is used again must not be copied each time

    def _storage(self) -> Storage:
        storage = _storage_of(self.pop())
        self._storages.setdefault(storage.key, storage)
        return storage


def _named(pairs: Sequence[Any]) -> dict[str, Any]:
    """The entries whose keys are texts: the hashes of others can be chosen to collide."""
    named = zip(pairs[::2], pairs[1::2], strict=True)
    return {key: value for key, value in named if isinstance(key, str)}


# Instructions that push what they are, what they make, and those that change what is there.
_VALUES = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING"),
    *("STRING", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_RESULTS: dict[str, Callable[[_Reader], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "MARK": lambda _: _MARK,
    "DUP": lambda reader: reader._stack[-1],
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: _NOTHING,
    "EMPTY_TUPLE": lambda _: (),
    "LIST": _Reader._to_mark,
    "DICT": lambda reader: _named(reader._to_mark()),
    "TUPLE": lambda reader: tuple(reader._to_mark()),
    "TUPLE1": lambda reader: reader._last(1),
    "TUPLE2": lambda reader: reader._last(2),
    "TUPLE3": lambda reader: reader._last(3),
    "STACK_GLOBAL": _Reader._global,
    "REDUCE": _Reader._call,
    "NEWOBJ": _Reader._call,
    "NEWOBJ_EX": _Reader._call_named,
    "OBJ": _Reader._call_marked,
    "BINPERSID": _Reader._storage,
}
_CHANGES: dict[str, Callable[[_Reader], Any]] = {
    "POP": lambda reader: reader._stack.pop(),
    "POP_MARK": _Reader._to_mark,
    "MEMOIZE": _Reader._memoize,
    "ADDITEMS": lambda reader: reader._extend(reader._to_mark()),
    "APPEND": lambda reader: reader._extend([reader.pop()]),
    "APPENDS": lambda reader: reader._extend(reader._to_mark()),
    "SETITEM": lambda reader: reader._put(reader._last(2)),
    "SETITEMS": lambda reader: reader._put(reader._to_mark()),
    "BUILD": _Reader._build,
}

_NOT_RUN = "Nothing of it was run. Get the model from its author, as .safetensors if there is one."


def _known(module: str, name: str) -> Any:
    """What stands for a name of a pickle; refused if it is not one of torch's for weights."""
    found = _Name(module, name)
    if str(found) in _CALLS or str(found) in ("torch Tensor", "torch.nn.parameter Parameter"):
        return found
    if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGES:
        return found
    if module == "torch" and name in _TYPES:
        return found
    if module.partition(".")[0] in _IGNORED or str(found) in _IGNORED_NAMES:
        return _NOTHING
    shown = f"{module}.{name}"[:80]
    raise ModelRefused(f"contains more than numbers: it names {shown!r}.", _NOT_RUN)


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    if function is _NOTHING:
        return _NOTHING
    if not isinstance(function, _Name) or str(function) not in _CALLS:
        raise ModelRefused("contains more than numbers: a call that no weights need.", _NOT_RUN)
    return _CALLS[str(function)](*arguments)


def _ordered_dict(*pairs: Any) -> dict[str, Any]:
    """Empty as a rule; pickles of Python 2 give their pairs at once."""
    if not pairs:
        return {}
    (found,) = pairs
    if not isinstance(found, list):
        raise ValueError("no list of pairs")
    # Emptied: a list that is used again and again must not be copied each time.
    result = {key: value for key, value in found if isinstance(key, str)}
    found.clear()
    return result


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any, type_: str = ""
) -> Tensor:
    """A view that lies within its storage, and has no more numbers than that."""
    if not isinstance(storage, Storage):
        raise ValueError("no storage")
    sides, steps = _numbers(shape), _numbers(strides)
    (begin,) = _numbers((offset,))
    if len(sides) != len(steps) or len(sides) > _MAX_SIDES:
        raise ValueError("no shape")
    tensor = Tensor(storage, type_ or storage.type, begin, sides, steps)
    last = begin + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    room = storage.numbers * ITEM_BYTES[storage.type] // ITEM_BYTES[tensor.type]
    if 0 not in sides and (last >= room or tensor.count > room):
        raise ModelRefused("is damaged: one of its tensors reaches beyond its own numbers.")
    return tensor


def _tensor_v3(*arguments: Any) -> Tensor:
    """Return a tensor with its type as the seventh argument; the storage has bytes alone."""
    name = arguments[6]
    if not isinstance(name, _Name) or name.name not in _TYPES:
        raise ValueError("no type")
    return _tensor(*arguments[:4], type_=_TYPES[name.name])


def _of_subclass(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    """A tensor with attributes: itself."""
    if not isinstance(arguments, tuple):
        raise ValueError("no arguments")
    return _called(function, arguments)


def _first(value: Any, *_: Any) -> Any:
    return value


def _storage_of(named: Any) -> Storage:
    """The persistent id of a storage: ("storage", type, key, device, how many[, view])."""
    kind, type_, key, _, numbers, *view = named
    if kind != "storage" or not isinstance(type_, _Name) or not isinstance(key, str):
        raise ValueError("no storage")
    if type_.name not in _STORAGES:
        raise ModelRefused(f"holds numbers of a type that is not supported: {type_.name[:40]!r}.")
    if view and view[0] is not None:
        raise ModelRefused("has views of storages, as old versions of torch wrote them.")
    (count,) = _numbers((numbers,))
    return Storage(key, _STORAGES[type_.name], count)


def _numbers(values: Any) -> tuple[int, ...]:
    found = tuple(values) if isinstance(values, tuple | list) else (values,)
    if any(type(value) is not int or not 0 <= value <= _MAX_NUMBER for value in found):
        raise ValueError("no numbers")
    return found


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "typing OrderedDict": _ordered_dict,
    "collections defaultdict": lambda *_: {},
    # What the first embeddings keep their vectors in.
    "torch.nn.modules.container ParameterDict": lambda *_: {},
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": _first,
    "torch._utils _rebuild_parameter_with_state": _first,
    "torch._tensor _rebuild_from_type_v2": _of_subclass,
    "torch Size": _first,
}
