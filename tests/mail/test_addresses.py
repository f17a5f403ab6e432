"""Addresses: what is let through, in which form, and what is said about the rest."""

import unicodedata

import pytest
from email_validator import validate_email
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.addresses import Mailbox, address_key, check_address, parse_mailbox

LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
LOCALS = st.from_regex(r"[A-Za-z0-9_+-]{1,12}(\.[A-Za-z0-9_+-]{1,12})?", fullmatch=True)
CONTROLS = st.sampled_from("\r\n\t\0\x01\x1f\x7f\x85\x9f\u2028\u2029")


@pytest.mark.parametrize(
    ("given_text", "normal"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.Lee+tag@Example.COM", "Ann.Lee+tag@example.com"),
        ("o'neil@example.net", "o'neil@example.net"),
        ("a@b.co", "a@b.co"),
        ("ann@example.test", "ann@example.test"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
        ("jose\u0301@example.com", "josé@example.com"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_an_address_comes_back_in_normal_form(given_text: str, normal: str) -> None:
    assert check_address(given_text) == normal
    assert check_address(normal) == normal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "no @ in 'foo'"),
        ("", "no @ in ''"),
        ("ann@localhost", "no dot in the domain of 'ann@localhost'"),
        ("ann@10.0.0.1", "the domain of 'ann@10.0.0.1' ends in a number"),
        ("@example.com", "something before the @"),
        ("ann@", "no dot in the domain"),
        ("a..b@example.com", "two periods in a row"),
        (".a@example.com", "period"),
        ("a b@example.com", "not a mail address"),
        ("ann@-x.example.com", "hyphen"),
        ("ann@x-.example.com", "hyphen"),
        ("ann@exa_mple.com", "invalid characters"),
        ("ann@example..com", "period"),
        ("a@b@example.com", "not a mail address"),
        ('"a b"@example.com', "Quoting"),
        ("ann@[127.0.0.1]", "bracketed IP address"),
        (f"{'a' * 65}@example.com", "too long"),
        (f"ann@{'a' * 64}.com", "too long|so many characters"),
        (f"ann@{'a.' * 130}com", "too long"),
        ("Ann <ann@example.com>", "angle brackets"),
        ("ann@example.com\r\nBcc: eve@example.com", "control character U\\+000D at position 15"),
        ("ann@example.com\n", "control character U\\+000A"),
        ("a\0b@example.com", "control character U\\+0000"),
    ],
)
def test_a_wrong_address_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(MisuseError, match=reason) as caught:
        check_address(text)
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(local=LOCALS, labels=st.lists(LABELS, min_size=2, max_size=4))
def test_the_fast_way_lets_through_only_what_the_library_does(
    local: str, labels: list[str]
) -> None:
    domain = ".".join(labels)
    assume(not labels[-1].isdigit())
    assume(domain.lower().split(".")[-1] not in {"local", "onion", "arpa", "invalid", "localhost"})
    assume("--" not in domain)
    expected = validate_email(
        f"{local}@{domain}", check_deliverability=False, globally_deliverable=False,
        test_environment=True,
    )  # fmt: skip
    assert check_address(f"{local}@{domain}").lower() == expected.normalized.lower()


@settings(max_examples=60)
@given(before=st.text(max_size=8), control=CONTROLS, after=st.text(max_size=8))
def test_no_control_character_gets_into_a_mailbox(before: str, control: str, after: str) -> None:
    dirty = before + control + after
    for attempt in (
        lambda: check_address(f"a{dirty}@example.com"),
        lambda: check_address(f"a@ex{dirty}ample.com"),
        lambda: parse_mailbox(f"{dirty} <a@example.com>"),
        lambda: Mailbox("a@example.com", dirty),
        lambda: Mailbox(f"a{dirty}@example.com"),
    ):
        with pytest.raises(MisuseError):
            attempt()


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.com", "", "ann@example.com"),
        ("  ann@example.com ", "", "ann@example.com"),
        ("<ann@example.com>", "", "ann@example.com"),
        ("Ann <ann@example.com>", "Ann", "ann@example.com"),
        ("Ann Lee<Ann@EXAMPLE.com>", "Ann Lee", "Ann@example.com"),
        ('"Doe, \\"Ann\\" \\\\" <ann@example.com>', 'Doe, "Ann" \\', "ann@example.com"),
        ("Doe, Ann <ann@example.com>", "Doe, Ann", "ann@example.com"),
        ('"A <b>" <ann@example.com>', "A <b>", "ann@example.com"),
        ("Jürgen 山田 <j@bücher.example>", "Jürgen 山田", "j@xn--bcher-kva.example"),
    ],
)
def test_a_mailbox_is_read_as_people_write_it(text: str, name: str, address: str) -> None:
    assert parse_mailbox(text) == Mailbox(address, name)


@pytest.mark.parametrize("text", ["Ann ann@example.com>", "Ann <>", "Ann", "Ann <ann>", ""])
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(MisuseError):
        parse_mailbox(text)


def test_a_mailbox_is_only_made_of_a_normal_address() -> None:
    with pytest.raises(MisuseError, match="normal form"):
        Mailbox("ann@Example.com")


def test_a_mailbox_knows_its_domain_and_whether_it_needs_smtputf8() -> None:
    assert parse_mailbox("ann@bücher.example").domain == "xn--bcher-kva.example"
    assert not parse_mailbox("ann@bücher.example").needs_smtputf8
    assert parse_mailbox("用户@example.com").needs_smtputf8


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann@example.com", "ann@EXAMPLE.com"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("JOSÉ@example.com", "jose\u0301@example.com"),
    ],
)
def test_spellings_of_one_address_have_one_key(one: str, other: str) -> None:
    assert address_key(check_address(one)) == address_key(check_address(other))
    assert unicodedata.is_normalized("NFC", address_key(check_address(one)))


def test_different_addresses_have_different_keys() -> None:
    assert address_key("ann@example.com") != address_key("ann+news@example.com")
