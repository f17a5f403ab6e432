"""Sealed payloads: encrypted before they reach the store, opened after the claim.

AES-256-GCM (NIST SP 800-38D). Whoever reads the store, its backups or its replicas learns the
length of a payload and its kind, and cannot change it or move it to a job of another kind unseen.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailrace.errors import MisuseError, RejectedError, UnavailableError

NONCE_BYTES = 12

_SECRET_BYTES = 32
_TAG_BYTES = 16
_VERSION = 1
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
# What every box begins with. Nothing else in a store does: enqueue refuses it or seals it.
_HEAD = b'{"mailrace_sealed":'
# The same as a person may write it: a store may take the white space out.
_LOOKS_SEALED = re.compile(rb'\s*\{\s*"mailrace_sealed"\s*:')
_MAKE_ONE = "make one with: openssl rand -base64 32"


class _Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mailrace_sealed: int
    key: str
    box: str


_BOX_DECODER = msgspec.json.Decoder(_Box)


def looks_sealed(payload: bytes) -> bool:
    """Whether a payload would be taken for a sealed one when it is claimed.

    What is enqueued without a sealer must not: it could not be told from a box.
    """
    # Almost every payload is decided by one of the two comparisons of a few bytes.
    if payload.startswith(b'{"'):
        return payload.startswith(_HEAD[:-1]) and _LOOKS_SEALED.match(payload) is not None
    return _LOOKS_SEALED.match(payload) is not None


def key_of(payload: bytes) -> str | None:
    """The id of the key that a payload is sealed with; None if it is not sealed.

    Raises:
        RejectedError: It looks sealed and is no box.
        UnavailableError: It is a box of a newer version.
    """
    return _parse_box(payload).key if payload.startswith(_HEAD) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """A secret and the name under which boxes refer to it.

    Attributes:
        id: 1 to 32 of A-Z, a-z, 0-9, _ and -. It stands in the store: not a secret.
        secret: 32 bytes from a good source of chance.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        # No value is shown: what stands in the wrong place may be the secret.
        if not _ID.fullmatch(self.id):
            raise MisuseError(
                f"the id of a sealing key has {len(self.id)} characters or one that is not allowed",
                hint="use 1 to 32 of A-Z, a-z, 0-9, _ and -, like 2026a",
            )
        if len(self.secret) != _SECRET_BYTES:
            raise MisuseError(
                f"the secret of a sealing key has {len(self.secret)} bytes, not {_SECRET_BYTES}",
                hint=_MAKE_ONE,
            )


class Sealer:
    """Seals with the first key and opens with any, so that keys can be changed while jobs wait.

    To change the key, put the new one first and keep the old one until nothing is sealed with it.
    With random nonces one key is good for 2**32 payloads (SP 800-38D, 8.3).

    Args:
        keys: The newest first.
        allow_plain: Let through what was enqueued before sealing was switched on. Without it a
            payload that is not sealed is refused, so that nobody with access to the store can put
            one in the place of a box.

    Raises:
        MisuseError: There is no key, or two have the same id.
    """

    def __init__(self, keys: Sequence[SealingKey], *, allow_plain: bool = True) -> None:
        if not keys:
            raise MisuseError("there is no sealing key", hint=_MAKE_ONE)
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}
        if len(self._ciphers) < len(keys):
            raise MisuseError("two sealing keys have the same id", hint="name each differently")
        self._first_id = keys[0].id
        self._allow_plain = allow_plain
        self._box_head = b'%b%d,"key":"%b","box":"' % (_HEAD, _VERSION, self._first_id.encode())

    @classmethod
    def parse(cls, text: str, *, allow_plain: bool = True) -> Self:
        """Reads `2026b:BASE64,2026a:BASE64`, the newest key first.

        Raises:
            MisuseError: A part is no key. It is named by its position, for any text in it may be
                the secret.
        """
        parts = text.split(",") if text.strip() else []
        keys = [_parse_key(part, number) for number, part in enumerate(parts, 1)]
        return cls(keys, allow_plain=allow_plain)

    @classmethod
    def given(cls, keys: str | None, *, sealed_only: bool = False) -> Self | None:
        """The sealer that somebody's settings ask for; `None` where there are no keys.

        Args:
            keys: As for `parse`.
            sealed_only: A payload that is not sealed is refused, which needs keys.

        Raises:
            MisuseError: As `parse`; or only sealed payloads are wanted, and there are no keys.
        """
        if keys is not None:
            return cls.parse(keys, allow_plain=not sealed_only)
        if sealed_only:
            raise MisuseError(
                "sealed_only is set, and there are no keys",
                hint="give keys; commands take them from MAILRACE_KEYS",
            )
        return None

    def __repr__(self) -> str:
        return f"Sealer(seals with {self._first_id!r}, opens {', '.join(self._ciphers)})"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of its keys; it seals with the first."""
        return tuple(self._ciphers)

    @property
    def allows_plain(self) -> bool:
        """Whether what is not sealed is let through."""
        return self._allow_plain

    def seal(self, payload: bytes, *, about: bytes, nonce: bytes) -> bytes:
        """The payload as a box, which is a JSON value of about four thirds of its length.

        Args:
            payload: Any bytes, also those of a box.
            about: What the box must be opened as: the job's kind.
            nonce: 12 random bytes. Never the same ones twice: that would give the payloads away.

        Raises:
            MisuseError: The nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise MisuseError(
                f"the nonce has {len(nonce)} bytes, not {NONCE_BYTES}",
                hint="give fresh random ones",
            )
        sealed = self._ciphers[self._first_id].encrypt(nonce, payload, about)
        return b'%b%b"}' % (self._box_head, base64.b64encode(nonce + sealed))

    def seal_many(self, payloads: Sequence[bytes], *, about: bytes, nonces: bytes) -> list[bytes]:
        """A box for each payload.

        Args:
            payloads: Each becomes one box.
            about: As for `seal`.
            nonces: 12 random bytes for each payload, in one piece.

        Raises:
            MisuseError: The nonces have another length, or one is in it twice.
        """
        pieces = [nonces[at : at + NONCE_BYTES] for at in range(0, len(nonces), NONCE_BYTES)]
        if len(nonces) != len(payloads) * NONCE_BYTES or len(set(pieces)) != len(pieces):
            raise MisuseError(
                f"{len(nonces)} bytes with {len(set(pieces))} different nonces in them do not do"
                f" for {len(payloads)} payloads",
                hint=f"give {NONCE_BYTES} fresh random bytes for each",
            )
        return [
            self.seal(payload, about=about, nonce=nonce)
            for payload, nonce in zip(payloads, pieces, strict=True)
        ]

    def open(self, sealed: bytes, *, about: bytes) -> bytes:
        """The payload that was sealed; a plain one as it is, unless that was ruled out.

        Raises:
            UnavailableError: This worker has not got the key, or is too old for the box. Another
                one may do better.
            RejectedError: It is no box that was sealed about this: damaged, forged or moved. Or
                it is plain, and that is not allowed.
        """
        if not sealed.startswith(_HEAD):
            return self._plain(sealed)
        return self._open_box(_parse_box(sealed), about)

    def resealed(self, sealed: bytes, *, about: bytes, nonce: bytes) -> bytes | None:
        """The same payload under the first key; None if it is sealed with that already.

        A plain payload is sealed, unless plain ones are not allowed. All are opened, so that the
        answer says that they can be.

        Raises:
            UnavailableError: As for `open`.
            RejectedError: As for `open`.
            MisuseError: As for `seal`.
        """
        if not sealed.startswith(_HEAD):
            return self.seal(self._plain(sealed), about=about, nonce=nonce)
        box = _parse_box(sealed)
        payload = self._open_box(box, about)
        if box.key == self._first_id:
            return None
        return self.seal(payload, about=about, nonce=nonce)

    def _plain(self, payload: bytes) -> bytes:
        if self._allow_plain:
            return payload
        raise RejectedError(
            "the payload is not sealed, and plain ones are not allowed",
            hint="find out who put it into the store, or allow plain payloads",
        )

    def _open_box(self, box: _Box, about: bytes) -> bytes:
        cipher = self._ciphers.get(box.key)
        if cipher is None:
            raise UnavailableError(
                f"the payload is sealed with the key {box.key!r}, which this worker has not got",
                hint="add it after the first key; if it is lost, so is the payload",
            )
        content = _content(box.box)
        try:
            return cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], about)
        except InvalidTag:
            raise RejectedError(
                f"the payload sealed with the key {box.key!r} does not open",
                hint="it was changed, belongs to a job of another kind, or the key's secret is"
                " not the one it was sealed with",
            ) from None


def _parse_key(part: str, number: int) -> SealingKey:
    key_id, colon, secret = part.strip().partition(":")
    if not colon:
        raise MisuseError(
            f"sealing key {number} has no colon", hint="write it like 2026a:BASE64; " + _MAKE_ONE
        )
    try:
        return SealingKey(id=key_id, secret=_secret(secret))
    except MisuseError as error:
        raise MisuseError(f"sealing key {number}: {error.problem}", hint=error.hint) from None
    except ValueError:
        raise MisuseError(
            f"the secret of sealing key {number} is no base64", hint=_MAKE_ONE
        ) from None


def _secret(text: str) -> bytes:
    """Reads base64 of either alphabet, with or without its padding."""
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)


def _parse_box(sealed: bytes) -> _Box:
    try:
        box = _BOX_DECODER.decode(sealed)
    except ValueError:  # also text that is not UTF-8
        box = None
    if box is None or not _ID.fullmatch(box.key):
        raise RejectedError(
            "the payload looks sealed and is no box", hint="it was damaged; enqueue the job again"
        )
    if box.mailrace_sealed != _VERSION:
        raise UnavailableError(
            f"the payload is sealed in version {box.mailrace_sealed}, and this worker knows"
            f" only {_VERSION}",
            hint="upgrade it",
        )
    return box


def _content(text: str) -> bytes:
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        content = b""
    # The last character may hold bits that belong to no byte: two texts would be the same box.
    if len(content) < NONCE_BYTES + _TAG_BYTES or base64.b64encode(content) != text.encode():
        raise RejectedError(
            "the payload looks sealed and its content is no base64 of a box",
            hint="it was damaged; enqueue the job again",
        )
    return content
