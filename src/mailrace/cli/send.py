"""`mailrace send`: a template and a list of people, out of the door."""

import io
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mailrace.cli.delivery import Order, deliver
from mailrace.cli.exits import DONE
from mailrace.cli.files import read_attachment, read_html, read_template
from mailrace.cli.opening import settings_for
from mailrace.cli.options import SendOptions
from mailrace.cli.output import as_json, tell
from mailrace.cli.preview import preview, preview_lines
from mailrace.cli.progress import face_for
from mailrace.cli.rehearsal import rehearsal, rehearsal_lines
from mailrace.clock import SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.mail.campaign import Campaign
from mailrace.mail.intake import open_source, open_table
from mailrace.mail.sending import Checked, check
from mailrace.pool import Rate, RetrySchedule
from mailrace.settings import Settings
from mailrace.wiring import Chance, open_mailer, store_path


def send(
    people: Annotated[str, Parameter(group="Arguments", allow_leading_hyphen=True)],
    /,
    *,
    options: SendOptions,
    arguments: Annotated[tuple[str, ...], Parameter(parse=False)] = (),
) -> int:
    """Sends a campaign to the people in a CSV file, durably.

    The same command again goes on where the last one ended: nobody is skipped, and nobody whose
    mail was accepted gets it twice. Ctrl-C finishes what is in flight; a second one stops at once.

    Args:
        people: CSV file; its columns are the template's variables. A dash is standard input.
        arguments: The command line, to say how to go on.
    """
    if people.startswith("--"):
        raise MisuseError(f"there is no option {people}", hint="try mailrace send --help")
    settings = _settings(options)
    _check_before_reading(options, settings)
    campaign = _campaign(people, options)
    standard_input = io.BytesIO() if sys.stdin is None else sys.stdin.buffer
    with open_source(people, standard_input) as path:
        table = open_table(
            path,
            email_column=options.email_column,
            name="standard input" if people == "-" else people,
        )
        with face_for(SystemClock(), plain=settings.verbose) as face:
            checked = check(campaign, table, rng=Chance().rng, progress=face.checking)
        if options.preview is not None:
            return _show_preview(checked, options.preview, json=options.json)
        if options.dry_run:
            return _show_rehearsal(checked, json=options.json)
        order = Order(
            source=people,
            checked=checked,
            settings=settings,
            arguments=arguments,
            limit=options.limit,
            wait=not options.no_wait,
            resend_uncertain=options.resend_uncertain,
            json=options.json,
            verbose=settings.verbose,
        )
        return deliver(order, Events())


def _settings(options: SendOptions) -> Settings:
    flags = {name: getattr(options, name, None) for name in Settings.__struct_fields__}
    flags["verbose"] = options.verbose or None  # without the flag the settings decide
    return settings_for(**flags)


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
    if settings.rate.strip().lower() != "none":
        Rate.parse(settings.rate)
    store_path(settings.store)
    open_mailer(settings.via, SystemClock())


def _campaign(people: str, options: SendOptions) -> Campaign:
    html, images = read_html(options.html) if options.html else (None, ())
    return Campaign(
        name=options.campaign or ("stdin" if people == "-" else Path(people).stem) or "people",
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


def _show_preview(checked: Checked, count: int, *, json: bool) -> int:
    shown = preview(checked, count)
    tell(as_json(shown) if json else "\n".join(preview_lines(shown)))
    return DONE


def _show_rehearsal(checked: Checked, *, json: bool) -> int:
    found = rehearsal(checked)
    tell(as_json(found) if json else "\n".join(rehearsal_lines(found)))
    return DONE
