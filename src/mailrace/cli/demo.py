"""`mailrace demo`: a thousand people, a real SMTP connection, and what came out at the end."""

import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path
from random import Random

from mailrace.cli.delivery import Order, deliver
from mailrace.cli.exits import FAILURES
from mailrace.cli.files import read_html
from mailrace.cli.output import tell
from mailrace.demo.server import DemoServer
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.mail.campaign import Campaign
from mailrace.mail.intake import open_table
from mailrace.mail.run import Outcome
from mailrace.mail.sending import check
from mailrace.queue import JobState
from mailrace.settings import Settings

_FILES = ("people.csv", "welcome.html", "millrace.png")


def demo(folder: Path = Path("mailrace-demo")) -> int:
    """Sends a campaign to a thousand people over a real SMTP server on this machine.

    Nothing leaves the machine. The people, the template, the store and every message that the
    server got stay in a folder to look at.

    Args:
        folder: The folder; made anew each time.
    """
    _prepare(folder)
    sent: Counter[str] = Counter()

    events = Events()
    events.follow(Outcome, lambda outcome: sent.update(_accepted(outcome)))
    with DemoServer(folder / "received") as server:
        code = deliver(_order(folder, server.port), events)
    tell("\n".join(_comparison(sent, server.received, folder)))
    return code if sent == server.received else FAILURES


def _accepted(outcome: Outcome) -> list[str]:
    return [outcome.address] if outcome.state is JobState.COMPLETED else []


def _prepare(folder: Path) -> None:
    if folder.exists() and not (folder / ".mailrace-demo").exists():
        raise MisuseError(f"{folder} is there already", hint="give the demo another folder")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / ".mailrace-demo").touch()
        for name in _FILES:
            (folder / name).write_bytes(files("mailrace.demo").joinpath(name).read_bytes())
    except OSError as error:
        raise MisuseError(
            f"{folder} cannot be made: {error.strerror or error}",
            hint="give the demo another folder",
        ) from error


def _order(folder: Path, port: int) -> Order:
    people = folder / "people.csv"
    html, images = read_html(folder / "welcome.html")
    campaign = Campaign(
        name="demo",
        sender="Mailrace <demo@example.com>",
        subject="{{ name }}, the water is running",
        html=html,
        inline_images=images,
        unsubscribe_url="https://example.com/unsubscribe/{{ email | urlencode }}",
    )
    table = open_table(people)
    return Order(
        source=str(people),
        checked=check(campaign, table, rng=Random()),  # noqa: S311 - a sample of rows, no secret
        settings=Settings(
            via=f"smtp://127.0.0.1:{port}", store=f"sqlite:///{folder / 'mail.db'}", rate="none"
        ),
    )


def _comparison(sent: Counter[str], received: Counter[str], folder: Path) -> list[str]:
    missing = sum((sent - received).values())
    twice = sum(times > 1 for times in received.values())
    return [
        "",
        "What was sent and what the server got:",
        f"  accepted by the server, as we saw it    {sent.total():>6,}",
        f"  messages that the server got            {received.total():>6,}",
        f"  missing                                 {missing:>6,}",
        f"  got twice                               {twice:>6,}",
        "",
        f"Look at the messages:  {folder / 'received'}  (open one with a mail program)",
        f"Rows left out:         {folder / 'people.rejected.csv'}",
        f"Where it stands:       mailrace status --store sqlite:///{folder / 'mail.db'}",
    ]
