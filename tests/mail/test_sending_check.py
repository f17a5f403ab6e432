"""A campaign is checked against its people before anything is enqueued."""

from pathlib import Path
from random import Random

import pytest

from mailrace.errors import MisuseError
from mailrace.mail.campaign import Campaign
from mailrace.mail.sending import check
from tests.support.intake import table_of

PEOPLE = "email,name,coupon\nann@example.com,Ann,\n"


def campaign(html: str, subject: str = "Hi") -> Campaign:
    return Campaign(name="news", sender="shop@example.com", subject=subject, html=html)


def test_an_unknown_name_in_a_branch_that_nobody_takes_is_found(tmp_path: Path) -> None:
    people = table_of(tmp_path, PEOPLE)
    html = "<p>Hi</p>\n{% if coupon %}<p>{{ cuopon }}</p>{% endif %}"
    with pytest.raises(MisuseError) as caught:
        check(campaign(html), people, rng=Random(1))
    assert str(caught.value) == (
        "html line 2: no column named 'cuopon'; did you mean 'coupon'? "
        "the columns are email, name, coupon"
    )


def test_an_unknown_name_in_the_subject_is_named_with_its_part(tmp_path: Path) -> None:
    people = table_of(tmp_path, PEOPLE)
    subject = "{% if coupon %}{{ vale }}{% endif %}"
    with pytest.raises(MisuseError, match=r"^subject line 1: no column named 'vale'"):
        check(campaign("x", subject), people, rng=Random(1))


def test_a_name_that_the_template_prepares_to_miss_is_no_error(tmp_path: Path) -> None:
    people = table_of(tmp_path, PEOPLE)
    html = "{{ title | default('') }}{% if vip is defined %}{{ vip }}{% endif %}{{ name }}"
    assert check(campaign(html), people, rng=Random(1)).survey.first is not None
