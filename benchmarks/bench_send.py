"""Messages a second of the whole of `mailrace send`: CSV, templates, MIME, SQLite, SMTP, journal.

The sink shares the machine's cores. Beside it in the same run: the SMTP client alone on the same
sink, which is what the rest of the command costs.
"""

import argparse

from bench_smtp import ours, rate
from loops import default_loop
from sending import send
from sinks import smtp_sink
from stats import Figure, figure, interleaved, table

_CLIENT_MESSAGES = 20_000


def measure(*, runs: int = 3, recipients: int = 30_000, workers: int = 20) -> list[Figure]:
    with smtp_sink() as port:
        walls = interleaved(
            {
                "all": lambda: send(port, recipients, workers=workers).wall_s,
                "one": lambda: send(port, 1, workers=workers).wall_s,
                "client": lambda: rate(ours, port, _CLIENT_MESSAGES, default_loop()),
            },
            runs,
        )
    whole = [recipients / wall for wall in walls["all"]]
    pairs = zip(walls["all"], walls["one"], strict=True)
    running = [(recipients - 1) / (everyone - one) for everyone, one in pairs]
    unit = "messages/s"
    return [
        figure(f"send, {recipients:,} people, wall", whole, unit, mark=6000),
        figure(
            f"send, {recipients:,} people, without start-up",
            running,
            unit,
            beside=("SMTP client alone", walls["client"]),
        ),
        figure("send, one person, wall", walls["one"], "s"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--recipients", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=20)
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
