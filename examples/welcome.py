"""Sends two messages into a folder; with a provider URL as argument, through that."""

import asyncio
import sys

from mailrace import Campaign, send

PEOPLE = [
    {"email": "ada@example.net", "name": "Ada"},
    {"email": "boris@example.org", "name": "Борис"},
]


async def main(via: str) -> None:
    campaign = Campaign(
        name="welcome",
        sender="Ann <ann@example.com>",
        subject="Welcome, {{ name }}",
        html="<p>Dear {{ name }}, the water is running.</p>",
    )
    report = await send(campaign, PEOPLE, via=via)
    print(f"{report.sent} sent, {report.failed} failed, {report.waiting} waiting")
    for reason in report.reasons:
        print(f"{reason.jobs} {reason.state}: {reason.reason} {reason.detail}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sandbox:outbox"))
