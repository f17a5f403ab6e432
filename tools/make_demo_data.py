"""Writes the recipients and the picture of the demonstration campaign into the package.

The same files come out at every run: `python tools/make_demo_data.py [DIRECTORY]`.
"""

import csv
import math
import struct
import sys
import tomllib
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import TypedDict

TOOLS = Path(__file__).resolve().parent
DEMO = TOOLS.parent / "src" / "mailrace" / "demo"
GOOD_ROWS = 1000

PLANS = ("Brook", "Stream", "River")
DOMAINS = ("example.com", "example.net", "example.org")


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    rng = Random(1782)  # noqa: S311 - the same file at every run, nothing secret
    good = people(rng)
    with (directory / "people.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["email", "name", "city", "plan", "messages"])
        writer.writerows(with_bad_rows(good))
    (directory / "millrace.png").write_bytes(png(240, 160, drawing(240, 160)))


class Script(TypedDict):
    """A part of `demo_names.toml`."""

    between: str
    family_first: bool
    given: list[str]
    family: list[str]
    cities: list[str]


def people(rng: Random) -> list[list[str]]:
    """Returns the good rows: every script about as often as the others, no address twice."""
    names = tomllib.loads((TOOLS / "demo_names.toml").read_text(encoding="utf-8"))
    everybody = [list(persons(script, rng)) for script in names.values()]
    for rows in everybody:
        rng.shuffle(rows)
    taken: dict[str, list[str]] = {}
    while len(taken) < GOOD_ROWS:
        rng.shuffle(everybody)
        for rows in everybody:
            row = rows.pop()
            taken.setdefault(row[0], row)
    return list(taken.values())[:GOOD_ROWS]


def persons(script: Script, rng: Random) -> Iterator[list[str]]:
    for index, (given, family) in enumerate(product(script["given"], script["family"])):
        (name, local), (family_name, family_local) = given.split(), family.split()
        parts = (family_name, name) if script["family_first"] else (name, family_name)
        yield [
            f"{local}.{family_local}@{DOMAINS[index % 3]}",
            script["between"].join(parts),
            rng.choice(script["cities"]),
            rng.choices(PLANS, (5, 3, 2))[0],
            str(rng.randrange(20, 90_000)),
        ]


def with_bad_rows(good: list[list[str]]) -> Iterator[list[str]]:
    """Yields the good rows with some among them that a list from real life would have."""
    bad = {
        90: ["", "Nobody Inparticular", "Ely", "Brook", "12"],
        205: ["ann.example.com", "Ann Forgot", "York", "Stream", "340"],
        333: ["carla@example", "Carla Dotless", "Siena", "Brook", "77"],
        480: ["half@example.com", "Half A. Row"],
        555: [good[41][0], *good[41][1:]],
        640: ["two@@example.org", "Two Ats", "Ghent", "River", "5100"],
        777: ["extra@example.net", "Extra Column", "Bath", "Brook", "61", "?"],
        860: [good[800][0].upper(), *good[800][1:]],
        931: ["bell@example.com", "Bell \a Ringer", "Oslo", "Stream", "204"],
    }
    for index, row in enumerate(good):
        if index in bad:
            yield bad[index]
        yield row


PALETTE = {
    "paper": (246, 241, 231),
    "wall": (217, 204, 180),
    "roof": (158, 84, 62),
    "window": (92, 74, 60),
    "wood": (122, 84, 54),
    "dark": (84, 58, 40),
    "race": (111, 172, 201),
    "water": (69, 137, 175),
    "deep": (47, 106, 145),
}


def drawing(width: int, height: int) -> Iterator[bytes]:
    """Yields rows of RGB; every pixel is the mean of nine points, which smooths the edges."""
    points = [(1 + 2 * i) / 6 for i in range(3)]
    for y in range(height):
        row = bytearray()
        for x in range(width):
            colours = [PALETTE[colour_at(x + dx, y + dy)] for dy in points for dx in points]
            row += bytes(sum(channel) // 9 for channel in zip(*colours, strict=True))
        yield bytes(row)


def colour_at(x: float, y: float) -> str:
    """Returns the palette's name for a point: a mill, its wheel, and the race above and below."""
    if y > 140 + 2.2 * math.sin(x / 11 + 1):
        return "deep"
    if y > 126 + 2.5 * math.sin(x / 9):
        return "water"
    return wheel_at(x - 98, y - 84) or channel_at(x, y) or house_at(x, y) or "paper"


def wheel_at(x: float, y: float) -> str | None:
    radius, angle = math.hypot(x, y), math.atan2(y, x)
    if radius < 5:
        return "paper"
    if radius < 10 or 48 < radius < 53 or 34 < radius < 37:
        return "dark"
    eighth, twentieth = math.pi / 4, math.pi / 10
    across = radius * abs(math.sin((angle + 0.2) % eighth))
    if radius < 50 and min(across, radius * abs(math.sin(eighth - (angle + 0.2) % eighth))) < 1.8:
        return "wood"
    bucket = radius * abs((angle + 0.3) % twentieth - twentieth / 2)
    return "wood" if 44 < radius < 60 and bucket < 1.6 else None


def channel_at(x: float, y: float) -> str | None:
    if x < 90 and 13 < y < 19:
        return "race"
    if x < 84 and 19 <= y < 23:
        return "wood"
    if y > 23 and 14 < x < 19:
        return "wood"
    # The fall bends over the end of the channel and meets the buckets.
    bend = 90 + 22 * math.sqrt(max(0.0, (y - 13) / 26))
    return "race" if 13 < y < 40 and bend - 9 < x < bend and x > 84 else None


def house_at(x: float, y: float) -> str | None:
    if 18 < y < 52 and abs(x - 192) < (y - 18) * 1.45 and abs(x - 192) < 42:
        return "roof"
    if 158 < x < 226 and y >= 52:
        window = 8 < abs(x - 192) < 22 and (64 < y < 80 or 94 < y < 110)
        return "window" if window else "wall"
    return None


def png(width: int, height: int, rows: Iterator[bytes]) -> bytes:
    """Returns 8-bit RGB as PNG (ISO/IEC 15948), each row as the difference to the one above."""
    above = bytes(width * 3)
    lines = bytearray()
    for row in rows:
        lines += b"\x02" + bytes((a - b) & 0xFF for a, b in zip(row, above, strict=True))
        above = row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(lines), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


if __name__ == "__main__":
    main()
