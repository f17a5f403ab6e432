"""Events reach whoever follows their class, in order, and nobody else."""

from dataclasses import dataclass

import pytest

from mailrace.events import Events


@dataclass(frozen=True)
class Rained:
    litres: int


class Poured(Rained):
    pass


def test_followers_of_a_class_get_its_events_in_order() -> None:
    events, heard = Events(), list[tuple[str, int]]()
    events.follow(Rained, lambda event: heard.append(("first", event.litres)))
    events.follow(Rained, lambda event: heard.append(("second", event.litres)))
    events.follow(str, lambda event: heard.append((event, 0)))
    events.emit(Rained(1))
    events.emit(Rained(2))
    events.emit(Poured(3))
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_nobody_has_to_listen() -> None:
    events = Events()
    assert not events.followed(Rained)
    events.emit(Rained(1))
    events.follow(Rained, lambda _: None)
    assert events.followed(Rained)
    assert not events.followed(Poured)


def test_a_follower_that_raises_is_heard() -> None:
    events, shares = Events(), list[int]()
    events.follow(Rained, lambda event: shares.append(1 // event.litres))
    with pytest.raises(ZeroDivisionError):
        events.emit(Rained(0))
