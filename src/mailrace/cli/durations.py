"""Time spans as people write them."""

from mailrace.errors import MisuseError
from mailrace.pool import RetrySchedule


def seconds(text: str, name: str) -> float:
    """Reads `30s`, `5m`, `12h`, `7d`, or plain seconds.

    Args:
        name: What the error says is wrong.

    Raises:
        MisuseError: The text is no time span.
    """
    plain = f"{text}s" if text.replace(".", "", 1).isdecimal() else text
    try:
        delays_s = RetrySchedule.parse(plain).delays_s
    except MisuseError:
        delays_s = ()
    if len(delays_s) != 1:
        raise MisuseError(f"{name} is {text!r}", hint="write it like 30s, 5m, 12h or 7d")
    return delays_s[0]
