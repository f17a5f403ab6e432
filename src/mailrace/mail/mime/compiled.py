"""A compiled message: composes the mail for one recipient after the other."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mailrace.mail.addresses import Mailbox, check_address
from mailrace.mail.headers import encode_date, encode_mailbox, encode_message_id
from mailrace.mail.message import Message
from mailrace.mail.mime.pieces import Piece
from mailrace.mail.mime.structure import merged
from mailrace.mail.sandbox import template_environment


class CompiledMessage:
    """The message of a campaign, ready to be composed for one recipient after the other.

    Attributes:
        sender: Who it is from; also the envelope sender.
        wanted: Variables that its templates may look up.
    """

    def __init__(
        self,
        *,
        sender: Mailbox,
        before_message_id: Iterable[bytes | Piece],
        after_message_id: Iterable[bytes | Piece],
    ) -> None:
        """Use `compile_message`."""
        constants = template_environment(html=False).globals
        self.sender = sender
        self._from = encode_mailbox("From", sender)
        self._domain = sender.domain
        self._globals: dict[str, Any] = dict(constants)
        self._smtputf8 = sender.needs_smtputf8
        self._before = _settled(before_message_id, self._globals)
        self._after = _settled(after_message_id, self._globals)
        self.wanted = frozenset[str]().union(
            *(
                piece.template.wanted
                for piece in (*self._before, *self._after)
                if not isinstance(piece, bytes)
            )
        )

    def check_columns(self, columns: Collection[str]) -> None:
        """Looks for names in the templates that no column has.

        Raises:
            MisuseError: There is one; with part and line.
        """
        for piece in (*self._before, *self._after):
            if not isinstance(piece, bytes):
                piece.template.check_columns(columns)

    def compose(
        self,
        to: Mailbox | str,
        variables: Mapping[str, object],
        *,
        message_id_local: str,
        date_s: int,
    ) -> Message:
        """The message for one recipient: the same bytes for the same arguments.

        Args:
            to: A mailbox, or an address without a name.
            variables: Column to value.
            message_id_local: What stands before the @ of the Message-ID; the same at every attempt.
            date_s: Unix time for the Date header.

        Raises:
            MisuseError: The address is not one, or a template cannot be filled in with these
                values; says which part and why.
        """
        address, to_line = _addressed(to)
        content = [encode_date(date_s), self._from, to_line]
        names = {**self._globals, **variables}
        _write(self._before, names, variables, content)
        content.append(encode_message_id(message_id_local, self._domain))
        _write(self._after, names, variables, content)
        return Message(
            sender=self.sender.address,
            recipients=(address,),
            content=b"".join(content),
            smtputf8=self._smtputf8 or not address.isascii(),
        )


def _addressed(to: Mailbox | str) -> tuple[str, bytes]:
    if isinstance(to, str):
        address = check_address(to)
        if len(address) <= 70:
            return address, f"To: {address}\r\n".encode()
        to = Mailbox(address)
    return to.address, encode_mailbox("To", to)


def _write(
    pieces: Iterable[bytes | Piece],
    names: dict[str, Any],
    columns: Mapping[str, object],
    content: list[bytes],
) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            content.append(piece)
        else:
            try:
                piece.write(names, content.append)
            except Exception as error:
                raise piece.template.explain(error, columns) from error


def _settled(pieces: Iterable[bytes | Piece], names: dict[str, Any]) -> tuple[bytes | Piece, ...]:
    """Writes once for all what has nothing to fill in."""
    settled: list[bytes | Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes) or piece.template.constant is None:
            settled.append(piece)
        else:
            written: list[bytes] = []
            _write([piece], names, {}, written)
            settled += written
    return merged(settled)
