"""A provider that sends nothing: every message becomes a file to look at."""

import re
from pathlib import Path
from uuid import uuid4

from mailrace.errors import RejectedError, UnavailableError
from mailrace.mail.message import Answer, Gate, Message, Reply, Stage

_MESSAGE_ID = re.compile(rb"^Message-ID: <([A-Za-z0-9._-]+)@", re.MULTILINE)
_WRITTEN = (Answer(Stage.BODY, Reply(250, "2.0.0", "kept in the sandbox")),)


class SandboxMailer:
    """Writes `FOLDER/LOCAL-PART-OF-MESSAGE-ID.eml`; the same message again is the same file."""

    def __init__(self, folder: Path) -> None:
        """The folder is made with the first message."""
        self.folder = folder
        self._made = False

    async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
        self._make()
        await gate.permit()
        draft = self.folder / f".{uuid4()}.part"
        try:
            draft.write_bytes(message.content)
            gate.commit()
            draft.replace(self.folder / _file_name(message.content))
        except OSError as error:
            raise UnavailableError(
                f"the sandbox {self.folder} cannot be written: {error.strerror}"
            ) from error
        finally:
            draft.unlink(missing_ok=True)
        return _WRITTEN * len(message.recipients)

    def _make(self) -> None:
        if self._made:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RejectedError(
                f"the sandbox {self.folder} cannot be made: {error.strerror}",
                hint="give another folder: --via sandbox:FOLDER",
            ) from error
        self._made = True

    async def close(self) -> None:
        return


def _file_name(content: bytes) -> str:
    found = _MESSAGE_ID.search(content)
    return f"{found[1].decode() if found else uuid4()}.eml"
