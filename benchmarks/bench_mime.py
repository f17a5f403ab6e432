"""Microseconds a message: the compiled message next to the standard library's EmailMessage.

Both make the same mail: 2 KB of HTML and 2 KB of text with five variables. For the standard library
the templates are compiled once as well, so that what is compared is making the message.
"""

import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from mailrace.mail.addresses import Mailbox
from mailrace.mail.mime import compile_message
from mailrace.mail.sandbox import template_environment
from mailrace.mail.templates import CompiledTemplate

RUNS = 5
PEOPLE = [
    {
        "name": f"Ann Smith {number}",
        "city": "Köln",
        "order": f"A-{number:06}",
        "amount": "12.50",
        "link": f"https://shop.example.com/orders/{number}?from=mail",
    }
    for number in range(200)
]
SUBJECT = "Your order {{ order }}, {{ name }}"
_SENTENCE = "We packed it this morning and handed it to the carrier, who knows the way. "
_OPENING = (
    "Hello {{ name }} in {{ city }}, your order {{ order }} over {{ amount }} EUR is on its way.\n"
)
_CLOSING = "Follow it at {{ link }}\n"
TEXT = _OPENING + (_SENTENCE * 3 + "\n") * 8 + _CLOSING
HTML = (
    f"<html><body><p>{_OPENING}</p>\n"
    + f"<p style='color: #333'>{_SENTENCE * 3}</p>\n" * 7
    + '<p>Follow it <a href="{{ link }}">here</a></p>\n</body></html>\n'
)
SENDER = Mailbox("shop@example.com", "The Shop")
DATE_S = 1_767_225_600


def _ours() -> Callable[[dict[str, str]], bytes]:
    compiled = compile_message(
        sender=SENDER, subject=SUBJECT, html=HTML, text=TEXT, boundary_seed="bench"
    )

    def compose(person: dict[str, str]) -> bytes:
        return compiled.compose(
            "ann.smith@example.net", person, message_id_local="0123456789abcdef", date_s=DATE_S
        ).content

    return compose


def _standard_library() -> Callable[[dict[str, str]], bytes]:
    plain, escaping = template_environment(html=False), template_environment(html=True)
    subject = CompiledTemplate("subject", SUBJECT, plain)
    text = CompiledTemplate("text", TEXT, plain)
    html = CompiledTemplate("html", HTML, escaping)

    def compose(person: dict[str, str]) -> bytes:
        message = EmailMessage(policy=SMTP)
        message["Date"] = format_datetime(datetime.fromtimestamp(DATE_S, UTC))
        message["From"] = f"{SENDER.name} <{SENDER.address}>"
        message["To"] = "ann.smith@example.net"
        message["Subject"] = subject.render(person)
        message["Message-ID"] = "<0123456789abcdef@example.com>"
        message.set_content(text.render(person))
        message.add_alternative(html.render(person), subtype="html")
        return message.as_bytes()

    return compose


def _median_us(compose: Callable[[dict[str, str]], bytes], rounds: int) -> float:
    compose(PEOPLE[0])
    runs = []
    for _ in range(RUNS):
        started = time.perf_counter()
        for _ in range(rounds):
            for person in PEOPLE:
                compose(person)
        runs.append((time.perf_counter() - started) / (rounds * len(PEOPLE)) * 1e6)
    return statistics.median(runs)


def main() -> dict[str, float | str]:
    """Measures both in this run.

    Returns:
        Microseconds a message, medians of five runs, their ratio and the machine.
    """
    ours, theirs = _median_us(_ours(), 25), _median_us(_standard_library(), 2)
    return {
        "mailrace_us": round(ours, 2),
        "email_message_us": round(theirs, 1),
        "ratio": round(theirs / ours, 1),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


if __name__ == "__main__":
    for name, figure in main().items():
        print(f"{name:20} {figure}")
