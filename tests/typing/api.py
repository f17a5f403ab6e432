"""How the public face is used, for the type checker; running it sends two messages to a folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import assert_type

from mailrace import (
    Attachment,
    Campaign,
    ConflictError,
    InlineImage,
    MailraceError,
    MisuseError,
    Pool,
    RejectedError,
    Report,
    UnavailableError,
    send,
    stream,
)
from mailrace.mail import Outcome

CAMPAIGN = Campaign(
    name="typed",
    sender="Ann <ann@example.com>",
    subject="Hello {{ name }}",
    html='<p>Hello {{ name }} <img src="cid:dot"></p>',
    text="Hello {{ name }}",
    reply_to="answers@example.com",
    headers=(("X-Team", "mill"),),
    unsubscribe_url="https://example.com/u?who={{ email | urlencode }}",
    attachments=(Attachment(file_name="terms.txt", media_type="text/plain", content=b"terms"),),
    inline_images=(InlineImage(content_id="dot", media_type="image/png", content=b"\x89PNG"),),
)
PEOPLE = [{"email": "ada@example.net", "name": "Ada"}]


def follow(outcome: Outcome) -> None:
    assert_type(outcome.address, str)
    assert_type(outcome.attempt, int)


async def whole() -> Report:
    return await send(
        CAMPAIGN, PEOPLE, via="sandbox:outbox", rate="none", workers=2, on_outcome=follow
    )


async def one_by_one() -> AsyncIterator[str]:
    more = [*PEOPLE, {"email": "boris@example.org", "name": "Boris"}]
    async with aclosing(stream(CAMPAIGN, more, via="sandbox:outbox", rate="none")) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome)
            yield outcome.address


async def main() -> None:
    report = await whole()
    assert_type(report.sent, int)
    assert_type(report.trouble, str | None)
    assert report.sent == 1
    assert [address async for address in one_by_one()] == ["boris@example.org"]
    async with Pool(workers=2) as pool:
        assert_type(await (await pool.submit(len, "pool")), int)
    try:
        await send(CAMPAIGN, [], via="sandbox:outbox")
    except (MisuseError, ConflictError, UnavailableError, RejectedError) as error:
        told: MailraceError = error
        assert_type(told.hint, str)


if __name__ == "__main__":
    asyncio.run(main())
