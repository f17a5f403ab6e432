import base64
import binascii

import pytest

from mailrace.mail.providers.smtp.auth import ChallengeError, Exchange, choose
from mailrace.mail.providers.smtp.settings import Auth

ALL = frozenset({"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "GSSAPI"})


def test_plain() -> None:  # RFC 4616 section 4
    exchange = Exchange(Auth.PLAIN, "tim", "tanstaaftanstaaf")
    assert exchange.command() == b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n"


def test_login() -> None:
    exchange = Exchange(Auth.LOGIN, "tim", "pä")
    assert exchange.command() == b"AUTH LOGIN\r\n"
    assert exchange.respond(b"VXNlcm5hbWU6") == base64.b64encode(b"tim") + b"\r\n"
    assert exchange.respond(b"UGFzc3dvcmQ6") == base64.b64encode("pä".encode()) + b"\r\n"
    with pytest.raises(ChallengeError):
        exchange.respond(b"")


def test_cram_md5() -> None:  # RFC 2195 section 2
    exchange = Exchange(Auth.CRAM_MD5, "tim", "tanstaaftanstaaf")
    assert exchange.command() == b"AUTH CRAM-MD5\r\n"
    challenge = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    answer = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n"
    assert exchange.respond(challenge) == answer


def test_cram_md5_with_a_challenge_that_is_not_base64() -> None:
    with pytest.raises(ChallengeError):
        Exchange(Auth.CRAM_MD5, "tim", "x").respond(b"*not base64*")


def test_xoauth2() -> None:
    exchange = Exchange(Auth.XOAUTH2, "tim@example.com", "token")
    first = exchange.command().split()[2]
    assert binascii.a2b_base64(first) == b"user=tim@example.com\x01auth=Bearer token\x01\x01"
    assert exchange.respond(b"eyJzdGF0dXMiOiI0MDEifQ==") == b"\r\n"


@pytest.mark.parametrize("mechanism", list(Auth))
def test_an_echo_of_the_command_is_redacted(mechanism: Auth) -> None:
    exchange = Exchange(mechanism, "tim", "tanstaaftanstaaf")
    echoes = [exchange.command().decode(), "tanstaaftanstaaf"]
    echoes.append(base64.b64encode(b"tanstaaftanstaaf").decode())
    for echo in echoes:
        shown = exchange.redact(f"syntax error in {echo}")
        assert "tanstaaf" not in shown
        assert "dGFuc3RhYWZ0YW5zdGFhZg" not in shown
        assert "AHRpbQB0YW5zdGFhZnRhbnN0YWFm" not in shown


@pytest.mark.parametrize(
    ("wanted", "offered", "encrypted", "chosen"),
    [
        (None, ALL, True, Auth.PLAIN),
        (None, ALL, False, Auth.CRAM_MD5),
        (None, frozenset({"LOGIN", "CRAM-MD5"}), True, Auth.LOGIN),
        (None, frozenset({"XOAUTH2"}), True, None),
        (Auth.XOAUTH2, ALL, True, Auth.XOAUTH2),
        (Auth.CRAM_MD5, ALL, True, Auth.CRAM_MD5),
        (Auth.LOGIN, frozenset({"PLAIN"}), True, None),
        (None, frozenset(), True, None),
    ],
)
def test_choice(
    wanted: Auth | None, offered: frozenset[str], encrypted: bool, chosen: Auth | None
) -> None:
    assert choose(wanted, offered, encrypted=encrypted) is chosen
