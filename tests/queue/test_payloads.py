"""Typed payloads."""

import dataclasses
import datetime as dt
import decimal
import inspect
import json
import math
import uuid
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError, RejectedError
from mailrace.queue.payloads import MOST_BYTES, PayloadType, _fault

UNTYPED = PayloadType()


class Address(msgspec.Struct):
    city: str
    codes: list[int] = []


class Person(msgspec.Struct, rename="camel"):
    name: str
    home_address: Address
    weight: float | None = None
    friend: "Person | None" = None
    extra: Any = None


@dataclasses.dataclass
class Order:
    number: int
    _note: str = ""


class Row(TypedDict):
    number: int


@attrs.define
class Item:
    price: decimal.Decimal


class Positive(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError("number is not\npositive")


@dataclasses.dataclass(eq=False)
class Careless:
    """Never equal to what comes back."""

    weight: float | None
    names: dict[int, str]


@dataclasses.dataclass
class Blind:
    """Equal whatever its weight is."""

    weight: float | None = dataclasses.field(compare=False)


def wrong(value: object) -> Any:
    """A value where the type checker would not let it through."""
    return value


class BlindStruct(msgspec.Struct):
    weight: float | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlindStruct)

    def __hash__(self) -> int:
        return 0


class Sparse(msgspec.Struct):
    number: int | msgspec.UnsetType = msgspec.UNSET


@attrs.define
class Private:
    _price: Any = 0


class Colour(Enum):
    RED = "red"


class Alien:
    pass


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
people = st.recursive(
    st.builds(
        Person,
        name=st.text(),
        home_address=st.builds(Address, city=st.text(), codes=st.lists(st.integers())),
        weight=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        extra=json_values,
    ),
    lambda inner: st.builds(msgspec.structs.replace, inner, friend=inner),
    max_leaves=3,
)


@given(json_values)
def test_a_json_value_comes_back_equal(value: object) -> None:
    raw = UNTYPED.encode(value)
    assert UNTYPED.decode(raw) == value
    assert UNTYPED.decode(msgspec.Raw(raw)) == value
    assert json.loads(raw) == value


@given(people)
def test_a_struct_comes_back_equal(person: Person) -> None:
    kind = PayloadType(Person)
    assert kind.decode(kind.encode(person)) == person


MOMENT = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, Order(1, "x")),
        (Row, {"number": 1}),
        (Item, Item(decimal.Decimal("1.10"))),
        (dict[str, int], {"a": 1}),
        (dict[int, str], {1: "a"}),
        (list[Address], [Address("Rome", [1])]),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (int, 7),
        (str, "a"),
        (None, None),
        (bytes, b"\x00\xff"),
        (int | None, None),
        (dt.datetime, MOMENT),
        (uuid.UUID, uuid.UUID(int=7)),
        (decimal.Decimal, decimal.Decimal("1.10")),
        (Colour, Colour.RED),
        (dict[str, object], {"a": [1]}),
        (Any, {"a": None}),
        (object, [None]),
        (inspect.Parameter.empty, {"a": {"b": 1.5}}),
    ],
)
def test_a_value_of_the_type_comes_back_equal(annotation: object, value: object) -> None:
    kind = PayloadType(annotation)
    back = kind.decode(kind.encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (dict[str, int], {"a": "x"}, r"\$\[\.\.\.\]"),
        (Person, Person("a", Address("b", [wrong("x")])), r"\$\.homeAddress\.codes\[0\]"),
        (Person, Person("a", wrong(None)), r"\$\.homeAddress"),
        (Person, {"name": "a"}, "homeAddress"),
        (Order, Order(wrong("x")), r"\$\.number"),
        (Row, {}, "number"),
        (Item, {"price": "x"}, r"\$\.price"),
        (int, True, "int"),
        (int, None, "int"),
        (None, 1, "null"),
        (int, 1.5, "int"),
    ],
)
def test_a_wrong_value_is_refused_at_both_ends(
    annotation: object, value: object, path: str
) -> None:
    kind = PayloadType(annotation)
    with pytest.raises(MisuseError, match=path) as misused:
        kind.encode(value)
    assert str(kind) in misused.value.hint
    with pytest.raises(RejectedError, match=path) as rejected:
        kind.decode(msgspec.json.encode(value))
    assert str(kind) in rejected.value.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"number":1',
        b'{"number":"x"}',
        b"\xff",
        b'"\xff"',
        b"[" * 100_000,
        b"NaN",
        b"1 2",
    ],
)
@pytest.mark.parametrize("annotation", [Any, Positive])
def test_what_is_no_payload_is_rejected(annotation: object, raw: bytes) -> None:
    if annotation is Any and raw == b'{"number":"x"}':
        return
    with pytest.raises(RejectedError) as caught:
        PayloadType(annotation).decode(raw)
    assert caught.value.hint


def test_what_a_type_says_of_its_values_is_kept_to_one_line() -> None:
    kind = PayloadType(Positive)
    with pytest.raises(RejectedError, match="number is not positive"):
        kind.decode(b'{"number":0}')
    with pytest.raises(MisuseError, match="number is not positive"):
        kind.encode({"number": 0})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("annotation", "build", "path"),
    [
        (Any, lambda number: number, r"\$ is"),
        (Any, lambda number: {"a": [0.5, {"b": number}]}, r"\$\.a\[1\]\.b is"),
        (Any, lambda number: {number: 1}, r"\$ key \S+ is"),
        (float, lambda number: number, r"\$ is"),
        (Person, lambda number: Person("a", Address("b"), weight=number), r"\$\.weight is"),
        (Person, lambda number: Person("a", Address("b"), extra=(number,)), r"\$\.extra\[0\] is"),
        (Careless, lambda number: Careless(number, {}), r"\$\.weight is"),
        (Blind, Blind, r"\$\.weight is"),
        (BlindStruct, BlindStruct, r"\$\.weight is"),
        (list[Blind], lambda number: [Blind(number)], r"\$\[0\]\.weight is"),
        (Any, lambda number: {"a": {number}}, r"\$\.a\[0\] is"),
        (Any, lambda number: {"a": 1, "b": [number], "c": Alien}, r"\$\.b\[0\] is"),
    ],
)
def test_no_number_becomes_null_without_a_word(
    annotation: object, build: Callable[[float], object], path: str, number: float
) -> None:
    with pytest.raises(MisuseError, match=path + " .*no such number") as caught:
        PayloadType(annotation).encode(build(number))
    assert caught.value.hint


def test_nulls_and_values_that_are_never_equal_are_no_fault() -> None:
    assert (
        UNTYPED.encode({"a": None, "b": "null", "c": float}.keys() and {"a": None}) == b'{"a":null}'
    )
    raw = PayloadType(Careless).encode(Careless(None, {1: "a", 2: "b"}))
    assert raw == b'{"weight":null,"names":{"1":"a","2":"b"}}'
    assert PayloadType(Blind).encode(Blind(None)) == b'{"weight":null}'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\ud800", r"\$ is"),
        ({"a": ["b", "\udfff"]}, r"\$\.a\[1\] is"),
        ({"a b": "\udfff"}, r"\$\['a b'\] is"),
        ({"\ud800": 1}, r"\$ key '\\ud800' is"),
        (Address("\ud800"), r"\$\.city is"),
        (Item(wrong("\ud800")), r"\$\.price is"),
    ],
)
def test_a_lone_surrogate_is_refused(value: object, path: str) -> None:
    with pytest.raises(MisuseError, match=path + " .*lone surrogate") as caught:
        UNTYPED.encode(value)
    assert caught.value.hint
    str(caught.value).encode()  # it can be printed


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Alien(), r"\$ is of type Alien"),
        ({"a": {"b": [Alien()]}}, r"\$\.a\.b\[0\] is of type Alien"),
        (Order(wrong(Alien())), r"\$\.number is of type Alien"),
        ({"a": 1j}, r"\$\.a is of type complex"),
        ({"a": {(1, 2): 3}}, r"\$\.a has a key that is no text"),
        ({None: 1}, r"\$ has a key that is no text"),
        ({1: "a", "1": "b"}, r"\$ has two keys"),
        ([{"a": {1: "a", "1": "b"}}], r"\$\[0\]\.a has two keys"),
        ({"a": Address}, r"\$\.a is of type StructMeta"),
        ([10**5000], r"\$\[0\] cannot be written: .*digits"),
        (msgspec.Raw(b"nonsense"), "malformed"),
        ({"a": msgspec.Raw(b"1}")}, "malformed"),
        ({"a": msgspec.Raw(b"")}, "malformed"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: object, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem) as caught:
        UNTYPED.encode(value)
    assert caught.value.hint


def test_what_is_not_written_is_no_fault() -> None:
    assert UNTYPED.encode([Sparse()]) == b"[{}]"
    assert UNTYPED.encode([Private(Alien())]) == b"[{}]"


def test_what_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    for value in (loop, {"a": loop}, [Alien(), loop], [{1: 1, "1": 2}, loop]):
        with pytest.raises(MisuseError):
            UNTYPED.encode(value)
    assert _fault(loop) is None  # the search ends


@given(depth=st.integers(1, 200))
def test_a_nested_fault_is_found(depth: int) -> None:
    value: object = math.nan
    for _ in range(depth):
        value = [value]
    with pytest.raises(MisuseError) as caught:
        UNTYPED.encode(value)
    assert f"${'[0]' * depth} is nan" in caught.value.problem


@given(most_bytes=st.integers(0, 100), length=st.integers(0, 100))
def test_a_payload_has_a_most_size(most_bytes: int, length: int) -> None:
    if length + 2 <= most_bytes:
        assert len(UNTYPED.encode("x" * length, most_bytes=most_bytes)) == length + 2
        return
    with pytest.raises(MisuseError, match=f"{length + 2} bytes, and {most_bytes}") as caught:
        UNTYPED.encode("x" * length, most_bytes=most_bytes)
    assert "address" in caught.value.hint


def test_the_most_size_is_a_mebibyte() -> None:
    assert len(UNTYPED.encode("x" * (MOST_BYTES - 2))) == 1024 * 1024
    with pytest.raises(MisuseError, match="1048577 bytes"):
        UNTYPED.encode("x" * (MOST_BYTES - 1))


class Recursive(msgspec.Struct):
    below: "list[Recursive]"
    alien: Alien | None = None


Unresolved = msgspec.defstruct("Unresolved", [("field", "Nowhere")])


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (Alien, "becomes a .*Alien"),
        (dict[str, list[Alien]], "becomes a .*Alien"),
        (Recursive, "becomes a .*Alien"),
        (Iterable[int], "Iterable"),
        (complex, "complex"),
        (msgspec.msgpack.Ext, "Ext"),
        (Unresolved, "Nowhere"),
        ("int", "'int'"),
        (7, "7"),
        (list[int] | set[int], "array-like"),
        (list[Private], "_price is private"),
    ],
)
def test_a_type_that_no_json_becomes_is_refused_at_once(annotation: object, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem) as caught:
        PayloadType(annotation)
    assert "Struct" in caught.value.hint


def test_a_type_that_contains_itself_is_one() -> None:
    assert str(PayloadType(Person)).endswith("Person")
    assert repr(PayloadType(dict[str, int])) == "PayloadType(dict[str, int])"
    assert PayloadType(inspect.Parameter.empty).annotation is Any


@pytest.mark.parametrize(("depth", "fits"), [(500, True), (501, False), (3000, False)])
def test_what_is_nested_too_deep_is_refused(depth: int, fits: bool) -> None:
    """Brackets within texts do not count."""
    value: object = '[[[{"' * 300
    for _ in range(depth):
        value = [value]
    if fits:
        assert PayloadType().decode(PayloadType().encode(value)) == value
    else:
        with pytest.raises(MisuseError, match=r"nested|deep"):
            PayloadType().encode(value)
