"""Typed payloads: the type a handler takes, and the JSON that a store keeps of its values."""

import dataclasses
import inspect
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from mailrace.errors import MisuseError, RejectedError

MOST_BYTES = 1024 * 1024
# SQLite's JSON goes 1,000 levels deep (sqlite.org/json1.html), and the job is around the payload.
DEPTH_MAX: Final = 500
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')

# What a decoder raises: ValidationError and broken UTF-8 are ValueErrors.
_UNREADABLE = (ValueError, RecursionError)
_SIMPLE = "a Struct, dataclass, TypedDict or a plain type such as dict[str, int]"
_UNKNOWN_TO_JSON = "turn it into plain values first: texts, numbers, lists, dicts, dates, structs"


class PayloadType:
    """The type of a handler's parameter: the one judge of what is enqueued and what is claimed.

    Built once for a handler, since it holds the compiled decoder.

    Without a type (`Any`, `object` or no annotation) every JSON value fits, and what JSON has not
    comes back as what it was written as: a tuple as a list, a date or a numeric key as a text.

    Raises:
        MisuseError: No JSON can become a value of this type.
    """

    __slots__ = ("_decode", "_equality_tells", "annotation")

    def __init__(self, annotation: object = Any) -> None:
        untyped = any(annotation is each for each in (Any, object, inspect.Parameter.empty))
        self.annotation = Any if untyped else annotation
        self._decode = _decoder(self.annotation).decode
        self._equality_tells = not any(map(_judges_itself, _parts(self.annotation)))

    def __repr__(self) -> str:
        return f"PayloadType({self})"

    def __str__(self) -> str:
        return inspect.formatannotation(self.annotation)

    def encode(self, value: object, *, most_bytes: int = MOST_BYTES) -> bytes:
        """The JSON of a value that the handler will be able to take.

        Raises:
            MisuseError: The value is of another type, too large, or JSON cannot hold it. The
                path of the field is named.
        """
        raw = _encode(value)
        if len(raw) > most_bytes:
            raise MisuseError(
                f"the payload has {len(raw)} bytes, and {most_bytes} are allowed",
                hint="store it elsewhere and put its address into the job",
            )
        if len(raw) > DEPTH_MAX and _brackets(raw) > DEPTH_MAX and _depth(raw) > DEPTH_MAX:
            raise MisuseError(
                f"the payload is nested more than {DEPTH_MAX} deep", hint="make it flatter"
            )
        # Read back as it will be at the claim: that is the check of the type. What comes back
        # unchanged needs no search for what JSON drops without a word, such as NaN for null.
        try:
            changed = self._decode(raw) != value
        except _UNREADABLE as error:
            raise _fault(value) or MisuseError(
                f"the payload does not fit: {_line(error)}", hint=f"the handler takes {self}"
            ) from error
        overlooked = not self._equality_tells and b"null" in raw
        if (changed or overlooked) and (fault := _fault(value)):
            raise fault
        return raw

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """The value that the handler is called with.

        Raises:
            RejectedError: The payload does not fit. The job fails, since trying again would not
                change its data. The path of the field is named.
        """
        try:
            return self._decode(raw)
        except _UNREADABLE as error:
            raise RejectedError(
                f"the payload does not fit: {_line(error)}",
                hint=f"the handler takes {self}; it was enqueued for another version of it",
            ) from error


def _decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    try:
        decoder = msgspec.json.Decoder(annotation)
        problem = next(filter(None, map(_type_problem, _parts(annotation))), "")
    except (TypeError, ValueError, NameError) as error:
        problem = _line(error)
    if problem:
        raise MisuseError(
            f"{inspect.formatannotation(annotation)} is no type of a payload: {problem}",
            hint=f"use {_SIMPLE}",
        )
    return decoder


def _parts(annotation: Any) -> Iterator[object]:
    """A type and all types in it, as msgspec describes them."""
    waiting: list[object] = [msgspec.inspect.type_info(annotation)]
    seen: set[int] = set()  # a type may contain itself
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, tuple):
            waiting.extend(item)
        elif isinstance(item, msgspec.inspect.Type | msgspec.inspect.Field):
            yield item
            waiting.extend(getattr(item, name) for name in item.__struct_fields__)


def _type_problem(part: object) -> str:
    """Why a type can be no part of a payload's, or an empty text."""
    match part:
        case msgspec.inspect.CustomType(cls=cls) if cls is not object:
            return f"no JSON becomes a {inspect.formatannotation(cls)}"
        case msgspec.inspect.ExtType():
            return "no JSON becomes a msgspec.msgpack.Ext"
        case msgspec.inspect.DataclassType(cls=cls) if hasattr(cls, "__attrs_attrs__"):
            # msgspec leaves such a field out when it writes, and asks for it when it reads.
            private = [field.name for field in part.fields if field.name.startswith("_")]
            return f"{cls.__name__}.{private[0]} is private and is not written" if private else ""
        case _:
            return ""


def _judges_itself(part: object) -> bool:
    """Whether equality of a type is its author's, and may leave fields out."""
    match part:
        case msgspec.inspect.StructType(cls=cls):
            return cls.__eq__ is not msgspec.Struct.__eq__
        case _:
            return isinstance(part, msgspec.inspect.DataclassType)


def _encode(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except RecursionError as error:
        raise MisuseError(
            "the payload is nested too deeply or contains itself", hint="make it flatter"
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _fault(value) or MisuseError(
            f"JSON cannot hold the payload: {_line(error)}", hint=_UNKNOWN_TO_JSON
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


# The rest only runs when something is wrong or may be: it finds out what and where.


def _fault(value: object) -> MisuseError | None:
    """The first thing in a value that JSON cannot hold or changes without a word."""
    waiting = [("$", value)]
    seen: set[int] = set()  # a value may contain itself
    while waiting:
        path, item = waiting.pop()
        children = _children(path, item)
        problem = _dict_problem(item) if isinstance(item, dict) else ""
        hint = "use texts as keys"
        if children is None:
            problem, hint = _leaf_problem(item)
        if problem:
            return MisuseError(f"the payload's {path} {problem}", hint=hint)
        if children and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(reversed(children))  # in the order of writing: the first fault wins
    return None


def _children(path: str, item: object) -> list[tuple[str, object]] | None:
    """What is inside, each with its path; None for what is no container."""
    if isinstance(item, dict):
        return [
            pair
            for key, inner in item.items()
            for pair in ((f"{path} key {key!r}", _key(key)), (path + _step(key), inner))
        ]
    if isinstance(item, list | tuple | set | frozenset):
        return [(f"{path}[{index}]", inner) for index, inner in enumerate(item)]
    names = _field_names(type(item))
    if names is None:
        return None
    inner = [(f"{path}.{name}", getattr(item, name, msgspec.UNSET)) for name in names]
    return [pair for pair in inner if pair[1] is not msgspec.UNSET]


def _key(key: object) -> object:
    return key if isinstance(key, str | float) else ""  # others are the dict's problem


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _field_names(cls: type) -> list[str] | None:
    if issubclass(cls, msgspec.Struct):
        return list(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return [each.name for each in dataclasses.fields(cls)]
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is None:
        return None
    return [each.name for each in attributes if not each.name.startswith("_")]  # as msgspec does


def _dict_problem(item: dict[object, object]) -> str:
    if all(type(key) is str for key in item):
        return ""
    try:
        written = msgspec.json.decode(msgspec.json.encode(dict.fromkeys(item)))
    except (TypeError, ValueError):
        return "has a key that is no text and no number"
    return "" if len(written) == len(item) else "has two keys that are the same when written"


def _leaf_problem(item: object) -> tuple[str, str]:
    """What is wrong with a single value and what to do, or two empty texts."""
    if isinstance(item, float) and not math.isfinite(item):
        return f"is {item}, and JSON has no such number", "give None or a text in its place"
    try:
        msgspec.json.encode(item)
    except UnicodeEncodeError:
        return (
            "is a text with a lone surrogate, which is no character",
            "decode the bytes it came from with their right encoding",
        )
    except TypeError:
        return f"is of type {type(item).__name__}, which JSON cannot hold", _UNKNOWN_TO_JSON
    except (ValueError, OverflowError) as error:
        return f"cannot be written: {_line(error)}", "give a text in its place"
    return "", ""


def _brackets(raw: bytes) -> int:
    return raw.count(b"[") + raw.count(b"{")


def _depth(raw: bytes) -> int:
    """How deep JSON is nested; brackets within texts do not count."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(raw):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                deepest = max(deepest, depth)
            case b"]" | b"}":
                depth -= 1
    return deepest
