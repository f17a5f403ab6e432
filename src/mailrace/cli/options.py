"""The options of `mailrace send`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

_MESSAGE = Parameter(group=Group("Message", sort_key=1))
_PEOPLE = Parameter(group=Group("People", sort_key=2))
_SENDING = Parameter(group=Group("Sending", sort_key=3))
_LOOKING = Parameter(group=Group("Looking", sort_key=4))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SendOptions:
    """What `send` takes beside the people.

    Attributes:
        sender: Who it is from: ann@example.com or `"Ann <ann@example.com>"`.
        subject: The subject, a template: "Hello {{ name }}".
        html: The HTML template. Pictures beside it are sent along.
        text: The text template; made from the HTML where it is not given.
        attach: A file to attach. May be given again.
        reply_to: Where answers go, a template.
        header: One more header, "Name: value"; the value is a template. May be given again.
        unsubscribe_url: Where to unsubscribe, a template; with https also for one click.
        email_column: The column with the addresses, where its name does not say so.
        limit: Take in only the first N people.
        campaign: The campaign's name, by default the file's. The same name goes on.
        store: Where the campaign is kept, by default sqlite:///mailrace.db.
        via: The provider: smtp://user:password@relay.example:587, smtps://… or sandbox:FOLDER.
        rate: The most that may go out over all workers: 100/s, 5000/h or none; by default 10/s.
        workers: Messages under way at the same time, by default 5.
        buffer: Messages at most that are claimed and not begun, by default 1000.
        retry: When to try again after a temporary refusal, by default 5m,15m,45m,135m; or none.
        no_wait: Leave retries that are not due to the next run.
        resend_uncertain: Send again what was handed over without a reply.
        dry_run: Check everything; store and send nothing.
        preview: Show the first N messages; store and send nothing.
        json: Print one JSON document at the end instead of text.
        verbose: Write a JSON log line for every attempt to standard error.
    """

    sender: Annotated[str, Parameter(name="--from"), _MESSAGE]
    subject: Annotated[str, _MESSAGE]
    html: Annotated[Path | None, _MESSAGE] = None
    text: Annotated[Path | None, _MESSAGE] = None
    attach: Annotated[tuple[Path, ...], _MESSAGE] = ()
    reply_to: Annotated[str | None, _MESSAGE] = None
    header: Annotated[tuple[str, ...], _MESSAGE] = ()
    unsubscribe_url: Annotated[str | None, _MESSAGE] = None
    email_column: Annotated[str | None, _PEOPLE] = None
    limit: Annotated[int | None, _PEOPLE] = None
    campaign: Annotated[str | None, _PEOPLE] = None
    store: Annotated[str | None, _PEOPLE] = None
    via: Annotated[str | None, _SENDING] = None
    rate: Annotated[str | None, _SENDING] = None
    workers: Annotated[int | None, _SENDING] = None
    buffer: Annotated[int | None, _SENDING] = None
    retry: Annotated[str | None, _SENDING] = None
    no_wait: Annotated[bool, _SENDING] = False
    resend_uncertain: Annotated[bool, _SENDING] = False
    dry_run: Annotated[bool, _LOOKING] = False
    preview: Annotated[int | None, _LOOKING] = None
    json: Annotated[bool, _LOOKING] = False
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"]), _LOOKING] = False
