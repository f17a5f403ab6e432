"""Follows a campaign attempt by attempt, and stops in good order at the first failure."""

import asyncio
import sys
from contextlib import aclosing

from mailrace import Campaign, stream

PEOPLE = [{"email": f"person{number}@example.net"} for number in range(20)]


async def main(via: str) -> None:
    campaign = Campaign(
        name="following",
        sender="ann@example.com",
        subject="One of twenty",
        text="You are {{ email }}.",
    )
    async with aclosing(stream(campaign, PEOPLE, via=via, rate="none")) as outcomes:
        async for outcome in outcomes:
            print(outcome.state, outcome.address, outcome.reason)
            if outcome.state == "failed":
                break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sandbox:outbox"))
