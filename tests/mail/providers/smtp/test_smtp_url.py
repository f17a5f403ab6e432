import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.providers.smtp import Auth, SmtpSettings, Timeouts, Tls, parse_smtp_url


def test_everything_that_can_be_said() -> None:
    assert parse_smtp_url(
        "smtp://us%40er:p%3Aw%2F@relay.example:2525?tls=required&verify=off&ca=%2Fetc%2Fca.pem"
        "&auth=cram-md5&auth-in-clear=yes&hello=me.example&messages=7&idle=1.5&connections=3"
        "&timeout=30&pipelining=off&chunking=off"
    ) == SmtpSettings(
        host="relay.example",
        port=2525,
        tls=Tls.REQUIRED,
        verify=False,
        ca_file=Path("/etc/ca.pem"),
        user="us@er",
        password="p:w/",
        auth=Auth.CRAM_MD5,
        auth_in_clear=True,
        hello="me.example",
        messages=7,
        idle_s=1.5,
        connections=3,
        timeouts=Timeouts().scaled_to(30),
        pipelining=False,
        chunking=False,
    )


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("smtp://relay.example", "relay.example", 587, Tls.REQUIRED),
        ("smtp://relay.example?tls=off", "relay.example", 25, Tls.OFF),
        ("smtp://relay.example?tls=opportunistic", "relay.example", 587, Tls.OPPORTUNISTIC),
        ("smtp://relay.example/", "relay.example", 587, Tls.REQUIRED),
        ("SMTP://Relay.Example", "relay.example", 587, Tls.REQUIRED),
        ("smtp://localhost", "localhost", 25, Tls.OPPORTUNISTIC),
        ("smtp://127.0.0.9:2525", "127.0.0.9", 2525, Tls.OPPORTUNISTIC),
        ("smtp://[::1]", "::1", 25, Tls.OPPORTUNISTIC),
        ("smtp://localhost?tls=required", "localhost", 25, Tls.REQUIRED),
        ("smtp://[2001:db8::1]:26", "2001:db8::1", 26, Tls.REQUIRED),
        ("smtps://relay.example", "relay.example", 465, Tls.IMPLICIT),
        ("smtps://localhost?tls=required", "localhost", 465, Tls.IMPLICIT),
    ],
)
def test_defaults(url: str, host: str, port: int, tls: Tls) -> None:
    found = parse_smtp_url(url)
    assert (found.host, found.port, found.tls) == (host, port, tls)


def test_timeout_keeps_the_proportions_but_not_of_quit() -> None:
    timeouts = parse_smtp_url("smtp://localhost?timeout=30").timeouts
    assert (timeouts.mail_s, timeouts.final_s, timeouts.data_s) == (30, 60, 12)
    assert timeouts.quit_s == Timeouts().quit_s


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://relay.example", "smtp://"),
        ("relay.example:25", "smtp://"),
        ("smtp://", "no host"),
        ("smtp://user:hunter2@", "no host"),
        ("smtp://relay.example:x", "port"),
        ("smtp://relay.example:0", "port"),
        ("smtp://relay.example:70000", "port"),
        ("smtp://relay.example?tsl=off", "did you mean tls?"),
        ("smtp://relay.example?mesages=1", "did you mean messages?"),
        ("smtp://relay.example?zzzzzzz=1", "known are tls"),
        ("smtp://relay.example?tls=maybe", "required or opportunistic or off"),
        ("smtp://relay.example?tls=off&tls=off", "twice"),
        ("smtp://relay.example?tls", "without a value"),
        ("smtp://relay.example?messages=0", "whole number"),
        ("smtp://relay.example?messages=99999999999", "whole number"),
        ("smtp://relay.example?idle=nan", "seconds"),
        ("smtp://relay.example?timeout=-1", "seconds"),
        ("smtp://relay.example?pipelining=perhaps", "on or off"),
        ("smtp://relay.example?auth=ntlm", "plain or login"),
        ("smtp://relay.example?auth=plain", "needs a user"),
        ("smtp://relay.example?hello=a%20b", "hello"),
        ("smtp://relay.example?tls=off&verify=off", "mean nothing"),
        ("smtp://user@relay.example", "missing"),
        ("smtp://relay.example/inbox", "between host and ?"),
        ("smtp://relay.example#x", "between host and ?"),
        ("smtps://relay.example?tls=off", "contradicts"),
        ("smtp://[::1", "cannot be read"),
        ("smtp://re lay.example", "spaces"),
        ("smtp://relay.example\n", "spaces"),
        ("smtp://a%00b:hunter2@relay.example", "NUL"),
        ("smtp://a:%ff@relay.example", "UTF-8"),
    ],
)
def test_mistakes_are_one_line_that_helps(url: str, says: str) -> None:
    with pytest.raises(MisuseError) as caught:
        parse_smtp_url(url)
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert "hunter2" not in text


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_an_unencoded_password_is_never_shown(tail: str) -> None:
    secret = "s3cr3tW0rd" + tail + "s3cr3tW0rd"
    try:
        found = parse_smtp_url(f"smtp://user:{secret}@relay.example?x=1")
    except MisuseError as error:
        shown = "".join(traceback.format_exception_only(error)) + str(error.__cause__)
        shown += "" if error.__suppress_context__ else str(error.__context__)
    else:
        shown = f"{found!r} {found}"
    assert "s3cr3t" not in shown


@given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.text(min_size=1))
def test_percent_encoded_credentials_come_back(user: str, password: str) -> None:
    try:
        quoted = quote(user, safe=""), quote(password, safe="")
    except UnicodeEncodeError:
        return
    if "\0" in password:
        return
    found = parse_smtp_url(f"smtp://{quoted[0]}:{quoted[1]}@relay.example")
    assert (found.user, found.password) == (user, password)


def test_settings_never_show_the_secret() -> None:
    found = parse_smtp_url("smtp://user:hunter2@relay.example")
    assert found.password == "hunter2"
    assert "hunter2" not in f"{found!r} {found}"
    assert "relay.example" in repr(found)


def test_an_opportunistic_session_is_checked_when_it_carries_credentials() -> None:
    assert not parse_smtp_url("smtp://localhost").checks_certificate
    assert parse_smtp_url("smtp://u:p@localhost").checks_certificate
    assert parse_smtp_url("smtp://localhost?ca=x.pem").checks_certificate
    assert parse_smtp_url("smtp://relay.example").checks_certificate
    assert not parse_smtp_url("smtp://u:p@relay.example?verify=off").checks_certificate


def test_timeouts_are_checked() -> None:
    with pytest.raises(MisuseError, match="final_s"):
        Timeouts(final_s=0)
