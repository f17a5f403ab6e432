"""`mailrace send`: a template and a list of people, out of the door."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mailrace.cli.delivery import Order, deliver
from mailrace.cli.exits import DONE
from mailrace.cli.files import read_attachment, read_html, read_template
from mailrace.cli.preview import preview_lines
from mailrace.clock import SystemClock
from mailrace.errors import MisuseError
from mailrace.mail.campaign import Campaign
from mailrace.mail.intake import open_source, open_table
from mailrace.mail.sending import Checked, check
from mailrace.pool import Rate, RetrySchedule
from mailrace.settings import Settings, load_settings
from mailrace.wiring import Chance, open_mailer, store_path

_NEGATIVE = Parameter(negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SendOptions:
    """What `send` takes beside the people.

    Attributes:
        sender: Who it is from: ann@example.com or "Ann <ann@example.com>".
        subject: The subject, a template: "Hello {{ name }}".
        html: File with the HTML template. Pictures beside it are sent along.
        text: File with the text template; made from the HTML where it is not given.
        attach: File to attach; may be given again.
        via: Provider: smtp://user:password@relay.example:587, smtps://…, sandbox:FOLDER.
        store: Where the campaign is kept: sqlite:///mail.db (default: mailrace.db here).
        campaign: Name of the campaign (default: the name of the file). The same name goes on.
        rate: The most that may go out, all together: 100/s, 5000/h, none (default: 10/s).
        workers: Messages under way at the same time (default: 5).
        retry: When to try again after a temporary refusal (default: 5m,15m,45m,135m).
        email_column: The column with the addresses, where its name does not say so.
        reply_to: Where answers go, a template.
        header: A further header, "Name: value"; the value is a template; may be given again.
        unsubscribe_url: URL to unsubscribe, a template; with https for one click.
        limit: Only the first N people.
        dry_run: Check everything, store and send nothing.
        preview: Show the first N messages, store and send nothing.
        no_wait: Do not stay for retries that are not due; the next run goes on.
        resend_uncertain: Send again what was handed over without a reply.
        json: Print the summary as JSON.
        verbose: Write a log line for every attempt to standard error.
    """

    sender: Annotated[str, Parameter(name="--from")]
    subject: str
    html: Path | None = None
    text: Path | None = None
    attach: Annotated[tuple[Path, ...], _NEGATIVE] = ()
    via: str | None = None
    store: str | None = None
    campaign: str | None = None
    rate: str | None = None
    workers: int | None = None
    retry: str | None = None
    email_column: str | None = None
    reply_to: str | None = None
    header: Annotated[tuple[str, ...], _NEGATIVE] = ()
    unsubscribe_url: str | None = None
    limit: int | None = None
    dry_run: Annotated[bool, _NEGATIVE] = False
    preview: int | None = None
    no_wait: Annotated[bool, _NEGATIVE] = False
    resend_uncertain: Annotated[bool, _NEGATIVE] = False
    json: Annotated[bool, _NEGATIVE] = False
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False


def send(people: str, *, options: SendOptions) -> int:
    """Sends a campaign to the people in a CSV file, durably.

    The same command again goes on where the last one ended: nobody is skipped, and nobody whose
    mail was accepted gets it twice.

    Args:
        people: CSV file with a header line; its columns are the template's variables. - reads
            standard input.
    """
    settings = load_settings(
        flags={
            "via": options.via,
            "store": options.store,
            "rate": options.rate,
            "workers": options.workers,
            "retry": options.retry,
        },
        environment=os.environ,
        folder=Path(),
    )
    _check_before_reading(options, settings)
    campaign = _campaign(people, options)
    with open_source(people, sys.stdin.buffer) as path:
        table = open_table(
            path,
            email_column=options.email_column,
            name="standard input" if people == "-" else people,
        )
        checked = check(campaign, table, rng=Chance().rng)
        if options.preview is not None:
            return _print(preview_lines(checked, options.preview))
        if options.dry_run:
            return _print(_dry_run_lines(checked))
        order = Order(
            source=people,
            checked=checked,
            settings=settings,
            arguments=tuple(sys.argv[1:]),
            limit=options.limit,
            wait=not options.no_wait,
            resend_uncertain=options.resend_uncertain,
            json=options.json,
            verbose=options.verbose,
        )
        return deliver(order)


def _check_before_reading(options: SendOptions, settings: Settings) -> None:
    """Whatever can be wrong without looking at the people, so that it is said at once."""
    if settings.via is None:
        raise MisuseError(
            "there is no provider to send through",
            hint="give --via smtp://user:password@relay.example:587, or try --via sandbox:outbox",
        )
    if options.html is None and options.text is None:
        raise MisuseError("there is no message", hint="give --html FILE or --text FILE")
    for name, number in (("--limit", options.limit), ("--preview", options.preview)):
        if number is not None and number < 1:
            raise MisuseError(f"{name} is {number}", hint="give 1 or more")
    RetrySchedule.parse(settings.retry)
    if settings.rate != "none":
        Rate.parse(settings.rate)
    store_path(settings.store)
    open_mailer(settings.via, SystemClock())


def _campaign(people: str, options: SendOptions) -> Campaign:
    html, images = read_html(options.html) if options.html else (None, ())
    return Campaign(
        name=options.campaign or ("stdin" if people == "-" else Path(people).stem),
        sender=options.sender,
        subject=options.subject,
        html=html,
        text=read_template(options.text) if options.text else None,
        reply_to=options.reply_to,
        headers=tuple(_header(text) for text in options.header),
        unsubscribe_url=options.unsubscribe_url,
        attachments=tuple(read_attachment(path) for path in options.attach),
        inline_images=images,
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise MisuseError(f"--header {text!r} has no colon", hint="write it like 'X-Name: value'")
    return name.strip(), value.strip()


def _dry_run_lines(checked: Checked) -> list[str]:
    found = checked.survey
    lines = [f"{checked.people.name}: {found.good:,} people can be sent to"]
    if found.rejected:
        lines.append(f"  {found.rejected:,} rows cannot; the first ones:")
        lines += [f"    line {row.line}: {row.reason}" for row in checked.rejected]
    tried = min(found.good, 1 + len(found.sample))
    lines.append(f"  the message could be written for all {tried} that were tried")
    lines.append("  nothing was stored or sent")
    return lines


def _print(lines: list[str]) -> int:
    print("\n".join(lines))
    return DONE
