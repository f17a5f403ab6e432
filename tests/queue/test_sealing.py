"""Payloads sealed at rest."""

import base64
import json
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MailraceError, MisuseError, RejectedError, UnavailableError
from mailrace.queue.sealing import NONCE_BYTES, Sealer, SealingKey, key_of, looks_sealed

OLD = SealingKey(id="2026a", secret=bytes(range(32)))
NEW = SealingKey(id="2026b", secret=bytes(range(100, 132)))
NONCE = b"twelve bytes"
OTHER_NONCE = b"TWELVE BYTES"
KIND = b"mail"
SEALER = Sealer([OLD])
STRICT = Sealer([OLD], allow_plain=False)
BOX = SEALER.seal(b'{"to":"ann@example.com"}', about=KIND, nonce=NONCE)

nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def written(key: SealingKey) -> str:
    return f"{key.id}:{base64.b64encode(key.secret).decode()}"


def box(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(BOX) | changes)


def test_settings_give_a_sealer_or_none_and_only_sealed_payloads_need_keys() -> None:
    assert Sealer.given(None) is None
    for sealed_only in (False, True):
        sealer = Sealer.given(f"{written(NEW)},{written(OLD)}", sealed_only=sealed_only)
        assert sealer is not None
        assert sealer.key_ids == ("2026b", "2026a")
        assert sealer.allows_plain is not sealed_only
        with pytest.raises(MisuseError, match="sealing key 1 has no colon"):
            Sealer.given("wrong", sealed_only=sealed_only)
    with pytest.raises(MisuseError, match="sealed_only is set, and there are no keys"):
        Sealer.given(None, sealed_only=True)


@given(payload=st.binary(max_size=200), about=st.binary(max_size=20), nonce=nonces)
def test_what_was_sealed_is_opened(payload: bytes, about: bytes, nonce: bytes) -> None:
    sealed = SEALER.seal(payload, about=about, nonce=nonce)
    assert STRICT.open(sealed, about=about) == payload
    assert looks_sealed(sealed)


def test_a_box_is_this_json_object() -> None:
    value = json.loads(BOX)
    content = base64.b64decode(value.pop("box"), validate=True)
    assert value == {"mailrace_sealed": 1, "key": "2026a"}
    assert content.startswith(NONCE)
    assert len(content) == len(NONCE) + len(b'{"to":"ann@example.com"}') + 16
    assert BOX.startswith(b'{"mailrace_sealed":1,"key":"2026a","box":"')
    assert b"ann" not in BOX + content


def test_a_box_of_this_version_can_always_be_opened() -> None:
    stored = (
        b'{"mailrace_sealed":1,"key":"2026a","box":'
        b'"dHdlbHZlIGJ5dGVz0aeXkUZgmMpx2jM3r46WYZq4P1vA4JnyK9uV+EgVCoIdN4H0txPAVA=="}'
    )
    assert stored == BOX


@given(at=st.integers(0, len(BOX) * 8 - 1))
def test_no_bit_of_a_box_can_be_changed(at: int) -> None:
    changed = bytearray(BOX)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises((RejectedError, UnavailableError)):
        STRICT.open(bytes(changed), about=KIND)


@given(payload=st.binary(max_size=4), nonce=nonces, data=st.data())
def test_no_bit_of_the_content_can_be_changed(
    payload: bytes, nonce: bytes, data: st.DataObject
) -> None:
    value = msgspec.json.decode(SEALER.seal(payload, about=KIND, nonce=nonce))
    content = bytearray(base64.b64decode(value["box"]))
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    content[at // 8] ^= 1 << at % 8
    changed = msgspec.json.encode(value | {"box": bytes(content)})
    with pytest.raises(RejectedError, match="does not open"):
        SEALER.open(changed, about=KIND)


@given(payload=st.binary(max_size=9), about=st.binary(max_size=9), other=st.binary(max_size=9))
def test_a_box_cannot_be_moved_to_another_kind(payload: bytes, about: bytes, other: bytes) -> None:
    sealed = SEALER.seal(payload, about=about, nonce=NONCE)
    if about == other:
        return
    with pytest.raises(RejectedError, match="'2026a' does not open"):
        SEALER.open(sealed, about=other)


def test_two_texts_are_never_the_same_box() -> None:
    value = msgspec.json.decode(SEALER.seal(b"", about=KIND, nonce=NONCE))  # 28 bytes: one "=="
    last = value["box"][-3]
    loose = value["box"][:-3] + chr(ord(last) + 1) + "=="
    assert base64.b64decode(loose) == base64.b64decode(value["box"])
    with pytest.raises(RejectedError):
        SEALER.open(box(box=loose), about=KIND)


@pytest.mark.parametrize(
    "damaged",
    [
        *(b'{"mailrace_sealed":', b'{"mailrace_sealed":1}', BOX[:-1], BOX + b"x"),
        *(box(more=1), box(mailrace_sealed="1"), box(key=7), box(key=""), box(key="a b")),
        *(box(key="x" * 33), box(box=""), box(box="%"), box(box="é"), box(box=[]), box(box="=")),
        *(box(box="A" * 36), BOX.replace(b'"box":"', b'"box":"\\n'), b'{"mailrace_sealed":"\xff"}'),
        b'{"mailrace_sealed":' + b"[" * 100_000,
    ],
)
def test_what_only_looks_sealed_is_an_error(damaged: bytes) -> None:
    with pytest.raises(RejectedError, match="looks sealed") as caught:
        SEALER.open(damaged, about=KIND)
    assert caught.value.hint
    with pytest.raises(RejectedError, match="looks sealed"):
        Sealer([NEW, OLD]).resealed(damaged, about=KIND, nonce=NONCE)


def test_a_box_under_an_unknown_key_is_left_to_who_has_it() -> None:
    with pytest.raises(UnavailableError, match="'2026a'") as caught:
        Sealer([NEW]).open(BOX, about=KIND)
    assert "add it" in caught.value.hint


def test_a_box_of_a_later_version_is_left_to_a_later_worker() -> None:
    with pytest.raises(UnavailableError, match="version 2"):
        SEALER.open(box(mailrace_sealed=2), about=KIND)


def test_a_box_under_another_secret_of_the_same_name_is_refused() -> None:
    same_name = Sealer([SealingKey(id=OLD.id, secret=NEW.secret)])
    with pytest.raises(RejectedError, match="'2026a' does not open"):
        same_name.open(BOX, about=KIND)


def test_the_key_of_a_box_can_be_told_without_having_it() -> None:
    assert key_of(BOX) == "2026a"
    assert key_of(b'{"to":1}') is None
    assert Sealer([NEW, OLD]).key_ids == ("2026b", "2026a")
    with pytest.raises(RejectedError):
        key_of(BOX[:-1])
    with pytest.raises(RejectedError):
        key_of(box(key="no id \x1b"))
    with pytest.raises(UnavailableError):
        key_of(box(mailrace_sealed=2))


def test_a_box_of_the_first_key_that_does_not_open_is_not_passed_over() -> None:
    with pytest.raises(RejectedError, match="does not open"):
        SEALER.resealed(BOX, about=b"another", nonce=NONCE)


def test_keys_are_changed_while_jobs_wait() -> None:
    both = Sealer([NEW, OLD])
    assert both.open(BOX, about=KIND) == SEALER.open(BOX, about=KIND)
    assert json.loads(both.seal(b"1", about=KIND, nonce=NONCE))["key"] == "2026b"
    moved = both.resealed(BOX, about=KIND, nonce=OTHER_NONCE)
    assert moved is not None
    assert both.resealed(moved, about=KIND, nonce=NONCE) is None
    assert Sealer([NEW]).open(moved, about=KIND) == SEALER.open(BOX, about=KIND)
    assert base64.b64decode(json.loads(moved)["box"]).startswith(OTHER_NONCE)


def test_resealing_checks_what_it_seals() -> None:
    both = Sealer([NEW, OLD])
    with pytest.raises(RejectedError, match="does not open"):
        both.resealed(BOX, about=b"another", nonce=NONCE)
    with pytest.raises(UnavailableError):
        Sealer([NEW]).resealed(BOX, about=KIND, nonce=NONCE)


@pytest.mark.parametrize("plain", [b"", b"null", b'{"a":1}', b'{"mailrace":1}', b'{"box":"x"}'])
def test_a_plain_payload_passes_until_that_is_ruled_out(plain: bytes) -> None:
    assert SEALER.open(plain, about=KIND) is plain
    sealed = SEALER.resealed(plain, about=KIND, nonce=NONCE)
    assert sealed is not None
    assert STRICT.open(sealed, about=KIND) == plain
    with pytest.raises(RejectedError, match="not sealed"):
        STRICT.open(plain, about=KIND)
    with pytest.raises(RejectedError, match="not sealed"):
        STRICT.resealed(plain, about=KIND, nonce=NONCE)


def test_a_payload_that_is_a_box_itself_comes_back_as_that_box() -> None:
    twice = SEALER.seal(BOX, about=KIND, nonce=OTHER_NONCE)
    assert SEALER.open(twice, about=KIND) == BOX
    again = Sealer([NEW, OLD]).resealed(twice, about=KIND, nonce=NONCE)
    assert again is not None
    assert Sealer([NEW]).open(again, about=KIND) == BOX


@pytest.mark.parametrize(
    "payload",
    [
        *(BOX, b'{"mailrace_sealed":1}', b'{"mailrace_sealed":null,"a":1}'),
        *(b' {"mailrace_sealed":1}', b'\n{\t"mailrace_sealed" \r: 1}', b'{ "mailrace_sealed":1}'),
        b'{"mailrace_sealed" :1}',
    ],
)
def test_a_payload_that_would_be_taken_for_a_box_looks_sealed(payload: bytes) -> None:
    assert looks_sealed(payload)


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{}", b"1", b'"mailrace_sealed"', b'["mailrace_sealed",1]', b'{"a":1}'),
        *(b'{"mailrace_sealed_too":1}', b'{"mailrace_seale":1}', b'{"Mailrace_sealed":1}'),
        *(b'{"a":{"mailrace_sealed":1}}', b'{"a":1,"mailrace_sealed":1}'),
    ],
)
def test_any_other_payload_does_not_look_sealed(payload: bytes) -> None:
    assert not looks_sealed(payload)
    assert SEALER.open(payload, about=KIND) is payload


@given(payloads=st.lists(st.binary(max_size=20), max_size=6), data=st.data())
def test_many_are_sealed_as_one_by_one(payloads: list[bytes], data: st.DataObject) -> None:
    count = len(payloads)
    each = data.draw(st.lists(nonces, min_size=count, max_size=count, unique=True))
    sealed = SEALER.seal_many(payloads, about=KIND, nonces=b"".join(each))
    assert sealed == [
        SEALER.seal(payload, about=KIND, nonce=nonce)
        for payload, nonce in zip(payloads, each, strict=True)
    ]


@pytest.mark.parametrize(
    "given_nonces", [b"", NONCE, NONCE + OTHER_NONCE[:-1], NONCE * 2, NONCE + OTHER_NONCE + b"x"]
)
def test_many_need_a_nonce_each(given_nonces: bytes) -> None:
    with pytest.raises(MisuseError) as caught:
        SEALER.seal_many([b"1", b"2"], about=KIND, nonces=given_nonces)
    assert caught.value.hint


@given(nonce=st.binary(max_size=30).filter(lambda nonce: len(nonce) != NONCE_BYTES))
def test_a_nonce_of_another_length_is_refused(nonce: bytes) -> None:
    with pytest.raises(MisuseError, match=f"{len(nonce)} bytes, not 12"):
        SEALER.seal(b"1", about=KIND, nonce=nonce)


def test_a_setting_is_read() -> None:
    sealer = Sealer.parse(f" {written(NEW)}, {written(OLD)}\n")
    assert sealer.open(BOX, about=KIND) == SEALER.open(BOX, about=KIND)
    assert json.loads(sealer.seal(b"", about=KIND, nonce=NONCE))["key"] == "2026b"
    assert sealer.open(b"1", about=KIND) == b"1"
    with pytest.raises(RejectedError):
        Sealer.parse(written(OLD), allow_plain=False).open(b"1", about=KIND)


@given(secret=st.binary(min_size=32, max_size=32), bare=st.booleans(), url=st.booleans())
def test_either_alphabet_of_base64_is_read(secret: bytes, bare: bool, url: bool) -> None:
    text = (base64.urlsafe_b64encode if url else base64.b64encode)(secret).decode()
    sealer = Sealer.parse(f"2026a:{text.rstrip('=') if bare else text}")
    sealed = Sealer([SealingKey(id="2026a", secret=secret)]).seal(b"1", about=KIND, nonce=NONCE)
    assert sealer.open(sealed, about=KIND) == b"1"


SECRET = base64.b64encode(b"Z" * 32).decode()
SHORT = base64.b64encode(b"Z" * 16).decode()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no sealing key"),
        (" ", "no sealing key"),
        (SECRET, "sealing key 1 has no colon"),
        (f"a:{SECRET},", "sealing key 2 has no colon"),
        (f":{SECRET}", "key 1: the id of a sealing key has 0 characters"),
        (f"{SECRET}:{SECRET}", "key 1: the id"),
        (f"a b:{SECRET}", "key 1: the id"),
        (f"{'a' * 33}:{SECRET}", "key 1: the id of a sealing key has 33"),
        (f"é:{SECRET}", "key 1: the id"),
        ("a:", "key 1: the secret of a sealing key has 0 bytes"),
        (f"a:{SECRET},b:{SHORT}", "key 2: the secret of a sealing key has 16 bytes, not 32"),
        (f"a:{SECRET[:-3]}", "secret"),
        (f"a:{SECRET}{SECRET}", "secret"),
        (f"a:{SECRET[:9]}%{SECRET[9:]}", "secret of sealing key 1 is no base64"),
        (f"a:{SECRET[:9]}é{SECRET[9:]}", "secret of sealing key 1 is no base64"),
        (f"{SHORT.rstrip('=')}:b", "secret"),
        (f"a:{SECRET},a:{SECRET}", "same id"),
    ],
)
def test_a_mistake_in_the_setting_is_named_and_the_secret_is_not(text: str, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem) as caught:
        Sealer.parse(text)
    assert caught.value.hint
    shown = repr(caught.value) + "".join(traceback.format_exception(caught.value))
    assert "ZZZ" not in shown
    assert SECRET[1:9] not in shown  # base64 of Z is WlpaWlpa
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab:, =A-_/é", max_size=60) | st.text(max_size=60))
def test_any_text_is_a_setting_or_misuse(text: str) -> None:
    try:
        sealer = Sealer.parse(text)
    except MisuseError:
        return
    assert sealer.open(sealer.seal(b"1", about=KIND, nonce=NONCE), about=KIND) == b"1"


def test_no_secret_is_shown() -> None:
    key = SealingKey(id="2026z", secret=b"Z" * 32)
    sealer = Sealer([key, OLD])
    for shown in (repr(key), str(key), repr(sealer), str(sealer), repr([sealer, key])):
        assert "ZZZ" not in shown
        assert SECRET[:8] not in shown
        assert "2026z" in shown
    with pytest.raises(TypeError):
        pickle.dumps(sealer)


@pytest.mark.parametrize("damage", [b"", BOX[:-20], b'{"mailrace_sealed":"ann"}'])
def test_no_error_shows_a_payload(damage: bytes) -> None:
    plain = b'{"password":"hunter2"}'
    with pytest.raises(MailraceError) as caught:
        STRICT.open(damage or plain, about=KIND)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
