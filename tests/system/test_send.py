"""`mailrace send` as a person uses it: what goes out, what is said, and the exit code."""

import csv
import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailrace.cli import main
from tests.support.command import (
    SENDER,
    arguments,
    environment,
    loads,
    run,
    send_words,
    start,
    states,
    write_campaign,
)
from tests.support.recording import RecordingServer

PEOPLE = "email,name,city\nada@example.net,Ada,London\nboris@example.org,Борис,Plovdiv\n"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d4944415478da63640000000600023"
    "0810d2f0000000049454e44ae426082"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with people and a template, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name not in environment():
            monkeypatch.delenv(name, raising=False)
    (tmp_path / "people.csv").write_text(PEOPLE, encoding="utf-8")
    (tmp_path / "hello.html").write_text("<p>Hello {{ name }}</p>", encoding="utf-8")
    return tmp_path


def words(
    *more: str, via: str = "sandbox:outbox", people: str = "people.csv", html: str = "hello.html"
) -> list[str]:
    return [
        "send", people, "--from", SENDER, "--subject", "Hello {{ name }}",
        "--html", html, "--via", via, "--rate", "none", *more,
    ]  # fmt: skip


def sent(folder: Path) -> dict[str, EmailMessage]:
    """The messages in the sandbox, by recipient."""
    read = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in (folder / "outbox").glob("*.eml")
    ]
    return {str(message["To"]): message for message in read}


def told_off(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("mailrace: ")
    return line


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such file": (words(people="nobody.csv"), "there is no file nobody.csv"),
    "a directory": (words(people="."), "is a directory"),
    "empty": (words(people="empty.csv"), "empty.csv is empty"),
    "header only": (words(people="header.csv"), "has no rows below its header"),
    "no address column": (words(people="nameless.csv"), "--email-column"),
    "wrong address column": (words("--email-column", "mail"), "no column 'mail'"),
    "only bad rows": (words(people="bad.csv"), "no row that can be sent to"),
    "no such authorities": (
        words(via="smtp://relay.example?ca=none.pem"),
        "ca names a PEM file",
    ),
    "variable in html": (words(html="typo.html"), "did you mean 'name'"),
    "missing html": (words(html="none.html"), "none.html cannot be read"),
    "an option twice": (words("--html", "hello.html"), "--html specified multiple times"),
    "template syntax": (words("--text", "broken.txt"), "text line 1"),
    "variable in text": (words("--text", "typo.html"), "did you mean 'name'"),
    "variable in header": (words("--header", "X-A: {{ nmae }}"), "header X-A"),
    "variable in url": (words("--unsubscribe-url", "https://x.example/{{ who }}"), "'who'"),
    "header without colon": (words("--header", "X-A"), "has no colon"),
    "header with newline": (words("--header", "X-A: b\nBcc: c@example.net"), "U+000A"),
    "forbidden header": (words("--header", "Subject: b"), "cannot be set"),
    "missing attachment": (words("--attach", "none.pdf"), "none.pdf cannot be read"),
    "attachment is a folder": (words("--attach", "."), "cannot be read: Is a directory"),
    "missing text": (words("--text", "none.txt"), "none.txt cannot be read"),
    "not UTF-8": (words("--text", "latin.txt"), "save it as UTF-8"),
    "bad reply-to": (words("--reply-to", "nobody"), "reply-to"),
    "bad rate": ([*words()[:-1], "10"], "is not a rate"),
    "bad retry": (words("--retry", "soon"), "is not a list of delays"),
    "no workers": (words("--workers", "0"), "0 workers"),
    "workers in words": (words("--workers", "many"), "--workers"),
    "limit": (words("--limit", "0"), "--limit is 0"),
    "preview": (words("--preview", "-1"), "--preview is -1"),
    "unknown option": (words("--subjct", "x"), "Did you mean --subject"),
    "unknown option in place of the file": (["send", "--json", "--from", "a@b.c"], "PEOPLE"),
    "one word too many": (words("more.csv"), "one word too many"),
    "no sender": (["send", "people.csv", "--subject", "x"], "needs --from"),
    "sender without value": (["send", "people.csv", "--from"], "a value for --from"),
    "unknown command": (["sned"], "Available commands: send"),
    "campaign name": (words("--campaign", "a\nb"), "no name for a campaign"),
    "store that is no database": (words("--store", "sqlite:///hello.html"), "another path"),
    "store in no folder": (words("--store", "sqlite:///none/mail.db"), "its folder exists"),
    "store that is a folder": (words("--store", "sqlite:///."), "cannot be written"),
    "other store": (words("--store", "mysql://ann:secret@db/mail"), "sqlite:///mail.db"),
    "no provider": (
        ["send", "people.csv", "--from", SENDER, "--subject", "x", "--html", "hello.html"],
        "--via smtp://",
    ),
    "no message": (["send", "people.csv", "--from", SENDER, "--subject", "x", "--via", "sandbox:o"], "--html"),  # noqa: E501
    "bad sender": (
        ["send", "people.csv", "--from", "ann", "--subject", "x", "--html", "hello.html", "--via", "sandbox:o"],  # noqa: E501
        "no @ in 'ann'",
    ),
    "unknown scheme": (words(via="ftp://ann:secret@relay.example"), "is not a provider"),
    "no scheme": (words(via="relay.example"), "is not a provider"),
    "no host": (words(via="smtp://ann:secret@"), "no host"),
    "bad port": (words(via="smtp://ann:secret@relay.example:x"), "port"),
    "unknown key": (words(via="smtp://ann:secret@relay.example?tsl=off"), "did you mean tls"),
    "slash in password": (words(via="smtp://ann:secret/x@relay.example"), "%2F"),
    "user without password": (words(via="smtp://ann@relay.example"), "password is missing"),
    "URL in the wrong place": (words("smtp://ann:secret@relay.example"), "one word too many"),
    "status of no store": (["status"], "there is no store at mailrace.db"),
    "status of no database": (["status", "--store", "sqlite:///hello.html"], "file is not a"),
    "demo in a folder of others": (["demo", "."], "is there already"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty.csv").touch()
    (folder / "header.csv").write_text("email,name\n")
    (folder / "nameless.csv").write_text("name,city\nAda,London\n")
    (folder / "bad.csv").write_text("email,name\nada,Ada\n")
    (folder / "typo.html").write_text("<p>{{ nmae }}</p>")
    (folder / "broken.txt").write_text("{% if %}")
    (folder / "latin.txt").write_bytes(b"Gr\xfc\xdfe")
    before = set(folder.iterdir()) | {folder / "outbox", folder / "o"}
    command, says = MISTAKES[name]
    assert main(command) == 2
    line = told_off(capsys)
    assert says in line
    assert "secret" not in line
    assert set(folder.iterdir()) <= before


def test_a_picture_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hello.html").write_text('<img src="none.png">')
    assert main(words()) == 2
    assert "none.png cannot be read" in told_off(capsys)


def test_all_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words()) == 0
    out = capsys.readouterr().out
    assert "people: all sent\n  sent 2   failed 0   waiting 0   uncertain 0   of 2 people" in out
    messages = sent(folder)
    assert {to: message["Subject"] for to, message in messages.items()} == {
        "ada@example.net": "Hello Ada",
        "boris@example.org": "Hello Борис",
    }


def test_the_same_again_sends_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words()) == 0
    for path in (folder / "outbox").iterdir():
        path.unlink()
    capsys.readouterr()
    assert main(words("--json")) == 0
    report = loads(capsys.readouterr().out)
    assert (report["sent"], report["known"], report["added"]) == (2, 2, 0)
    assert sent(folder) == {}


def test_another_template_under_the_same_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    capsys.readouterr()
    (folder / "hello.html").write_text("<p>Changed, {{ name }}</p>")
    assert main(words()) == 2
    line = told_off(capsys)
    assert "begun with another html" in line
    assert "--campaign" in line


def test_rows_that_cannot_be_sent_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A semicolon, a BOM and a quoted newline, a bad row of each kind, an address twice."""
    (folder / "people.csv").write_text(
        "\ufeffE-Mail;name;note\n"
        'ada@example.net;Ada;"two\nlines"\n'
        ";Nobody;x\n"
        "at nowhere;Nora;x\n"
        "short@example.net;S\n"
        "control@example.net;C\x07;x\n"
        "ADA@example.net;Ada again;x\n",
        encoding="utf-8",
    )
    assert main(words("--json")) == 0
    report = loads(capsys.readouterr().out)
    with (folder / "people.rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file, delimiter=";"))
    assert report["added"] + report["known"] + report["rejected"] == 6
    assert (report["sent"], report["known"], report["rejected"]) == (1, 1, 4)
    assert report["rejected_file"] == "people.rejected.csv"
    assert [(row["line"], row["reason"].split(" in ")[0]) for row in rejected] == [
        ("4", "no address"),
        ("5", "no @"),
        ("6", "2 columns where the header has 3"),
        ("7", "control character U+0007"),
    ]


def test_a_newline_in_a_value_never_makes_a_header(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by the check where it is in the sample, and by the message itself where it is not."""
    (folder / "people.csv").write_text('email,name\nx@example.net,"Eve\nBcc: y@example.net"\n')
    assert main(words()) == 2
    assert "U+000A" in told_off(capsys)
    (folder / "hello.html").write_text("<p>{{ name }}</p>")
    assert main([*words()[:5], "Hello", *words()[6:]]) == 0
    assert sent(folder)["x@example.net"]["Bcc"] is None


def test_everything_a_message_can_have(folder: Path) -> None:
    (folder / "dot.png").write_bytes(PIXEL)
    (folder / "hello.html").write_text('<p>Hello {{ name }} <img src="dot.png"></p>')
    (folder / "hello.txt").write_text("Plain hello, {{ name }}", encoding="utf-8")
    (folder / "terms.txt").write_text("the terms", encoding="utf-8")
    (folder / "Größe.bin").write_bytes(bytes(range(256)))
    extra = [
        "--text", "hello.txt", "--attach", "terms.txt", "--attach", "Größe.bin",
        "--header", "X-City: {{ city }}", "--header", "X-Team: mill",
        "--reply-to", "{{ name }} <answers@example.com>",
        "--unsubscribe-url", "https://example.com/u?who={{ email | urlencode }}",
    ]  # fmt: skip
    assert main(words(*extra)) == 0
    message = sent(folder)["boris@example.org"]
    assert (message["X-City"], message["X-Team"]) == ("Plovdiv", "mill")
    assert message["Reply-To"].addresses[0].display_name == "Борис"
    assert message["List-Unsubscribe"] == "<https://example.com/u?who=boris%40example.org>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    plain = message.get_body(("plain",))
    assert plain is not None
    assert plain.get_content().strip() == "Plain hello, Борис"
    files = {part.get_filename(): part for part in message.iter_attachments()}
    assert set(files) == {"terms.txt", "Größe.bin"}
    assert files["Größe.bin"].get_content() == bytes(range(256))
    pictures = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert [part.get_content() for part in pictures] == [PIXEL]
    html = message.get_body(("html",))
    assert html is not None
    assert f"cid:{pictures[0]['Content-ID'].strip('<>')}" in html.get_content()


def test_preview_and_dry_run_store_and_send_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "people.csv").write_text(PEOPLE + "nowhere,N,N\n", encoding="utf-8")
    assert main(words("--preview", "1")) == 0
    shown = capsys.readouterr().out
    assert "To: ada@example.net\nSubject: Hello Ada\n\nHello Ada\n" in shown
    assert "boris" not in shown
    assert main(words("--preview", "5", "--json")) == 0
    listed = loads(capsys.readouterr().out)
    assert [(one["to"], one["text"]) for one in listed] == [
        ("ada@example.net", "Hello Ada"),
        ("boris@example.org", "Hello Борис"),
    ]
    assert main(words("--dry-run")) == 0
    told = capsys.readouterr().out
    assert "people.csv: 2 rows can be sent to\n  1 row cannot:\n    line 4: no @" in told
    assert main(words("--dry-run", "--json")) == 0
    found = loads(capsys.readouterr().out)
    assert (found["rows"], found["rejected"], found["tried"]) == (2, 1, 2)
    assert not (folder / "mailrace.db").exists()
    assert sent(folder) == {}


def test_the_first_ones_and_then_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("--limit", "1", "--json")) == 0
    assert loads(capsys.readouterr().out)["people"] == 1
    assert set(sent(folder)) == {"ada@example.net"}
    assert main(words("--json")) == 0
    report = loads(capsys.readouterr().out)
    assert (report["people"], report["ended_here"]) == (2, 1)


def test_an_email_column_by_name(folder: Path) -> None:
    (folder / "people.csv").write_text("contact,name\nada@example.net,Ada\n")
    assert main(words("--email-column", "contact")) == 0
    assert set(sent(folder)) == {"ada@example.net"}


def test_settings_from_environment_and_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mailrace.toml").write_text('via = "sandbox:from-file"\nstore = "sqlite:///f.db"\n')
    command = words()[:8]
    assert main(command) == 0
    assert len(list((folder / "from-file").iterdir())) == 2
    monkeypatch.setenv("DATABASE_URL", "sqlite:///environment.db")
    assert main([*command, "--via", "sandbox:from-flag"]) == 0
    assert len(list((folder / "from-flag").iterdir())) == 2
    assert {path.name for path in folder.glob("*.db")} == {"f.db", "environment.db"}


def test_refusals_end_with_exit_code_1_and_their_reasons(folder: Path) -> None:
    write_campaign(folder, [f"{name}@example.net" for name in ("one", "two", "three")])
    with RecordingServer(
        answer=lambda to: "250 2.1.5 ok" if to.startswith("one") else "550 5.1.1 no such user"
    ) as server:
        done = run(*send_words(server.url), cwd=folder)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "finished, not all were sent" in done.stdout
    assert "2  failed: 550 5.1.1 no such user" in done.stdout


def temporary(times: int) -> Callable[[str], str]:
    """Refuses every address so many times, then takes it."""
    seen: Counter[str] = Counter()

    def answer(address: str) -> str:
        seen[address] += 1
        return "450 4.2.1 later" if seen[address] <= times else "250 2.1.5 ok"

    return answer


def test_a_temporary_refusal_is_tried_again_at_its_time(folder: Path) -> None:
    write_campaign(folder, ["ada@example.net"])
    with RecordingServer(answer=temporary(2)) as server:
        done = run(*send_words(server.url, "--retry", "300ms,600ms,1h", "--json"), cwd=folder)
        first, second, third = server.recorded.times
    assert done.returncode == 0, done.stderr
    assert (loads(done.stdout)["sent"], loads(done.stdout)["ended_here"]) == (1, 3)
    assert 0.3 <= second - first < 1.3
    assert 0.6 <= third - second < 1.6


def test_no_wait_leaves_the_retry_to_the_next_run(folder: Path) -> None:
    write_campaign(folder, ["ada@example.net"])
    with RecordingServer(answer=temporary(1)) as server:
        words = send_words(server.url, "--retry", "1h", "--no-wait")
        for _ in range(2):
            done = run(*words, cwd=folder)
            assert done.returncode == 3, done.stderr
            assert "left for the next run" in done.stdout
            assert "450 4.2.1 later" in done.stdout
            assert "the next retry is due at" in done.stdout
            assert f"mailrace {' '.join(map(str, words[:2]))}" in done.stdout
        assert len(server.recorded.times) == 1


def test_a_wrong_password_stops_the_run_and_is_never_shown(folder: Path) -> None:
    with RecordingServer() as server:
        via = server.url.replace("//", "//ann:top%20secret@") + "?auth-in-clear=on"
        done = run(*send_words(via), cwd=folder)
    assert done.returncode == 3
    assert "the provider refused us" in done.stdout
    assert "ann:PASSWORD@127.0.0.1" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert set(states(folder / "mailrace.db").values()) == {"available"}


def test_json_and_nothing_else(folder: Path) -> None:
    with RecordingServer() as server:
        done = run(*send_words(server.url, "--json"), cwd=folder)
    assert done.returncode == 0
    assert done.stderr == ""
    report = loads(done.stdout)
    assert (report["campaign"], report["sent"], report["exit_code"]) == ("people", 2, 0)


def test_verbose_names_worker_and_message(folder: Path) -> None:
    with RecordingServer() as server:
        done = run(*send_words(server.url, "-v"), cwd=folder)
        received = server.recorded.messages
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["to"]: f"{line['message']}@example.com" for line in lines} == {
        to: ids[0] for to, ids in received.items()
    }
    assert {line["event"] for line in lines} == {"sent"}
    assert all(line["worker"] in range(1, 6) and line["attempt"] == 1 for line in lines)


def test_people_from_standard_input(folder: Path) -> None:
    command = words("--json")
    command[1] = "-"
    done = run(*command, cwd=folder, given=PEOPLE + "bad,B,B\n")
    assert done.returncode == 0, done.stderr
    assert loads(done.stdout)["campaign"] == "stdin"
    assert loads(done.stdout)["rejected_file"] == "stdin.rejected.csv"
    assert set(sent(folder)) == {"ada@example.net", "boris@example.org"}


def test_ctrl_c_finishes_what_is_in_flight(folder: Path) -> None:
    """Everything that was handed over is accounted for as sent; the same command goes on."""
    write_campaign(folder, [f"person{n}@example.net" for n in range(200)])
    seen = threading.Event()
    with RecordingServer(
        delay_s=0.1, on_message=lambda total: seen.set() if total >= 10 else None
    ) as server:
        process = start(*send_words(server.url), cwd=folder)
        assert seen.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 3, err
        assert "in flight will be finished" in err
        assert "Traceback" not in err
        after = Counter(states(folder / "mailrace.db").values())
        assert after == {"completed": server.recorded.total, "available": 200 - after["completed"]}
        assert "stopped before the end" in out
        assert "to go on:" in out
        server.delay_s = 0
        assert run(*send_words(server.url), cwd=folder).returncode == 0
        assert {len(ids) for ids in server.recorded.messages.values()} == {1}
        assert len(server.recorded.messages) == 200


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(folder: Path, second: signal.Signals) -> None:
    write_campaign(folder, [f"person{n}@example.net" for n in range(20)])
    full = threading.Event()
    with RecordingServer(
        delay_s=600, on_message=lambda total: full.set() if total == 5 else None
    ) as server:
        process = start(*send_words(server.url), cwd=folder)
        assert full.wait(30)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "5 messages in flight" in process.stderr.readline()
        process.send_signal(second)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert err == "Stopping at once.\n"
    assert Counter(states(folder / "mailrace.db").values()) == {"uncertain": 5, "available": 15}
    assert "--resend-uncertain" in out


def test_uncertain_ones_are_held_until_asked_for(folder: Path) -> None:
    """A server that takes the message and hangs up without a word."""
    write_campaign(folder, ["ada@example.net"])
    taken = threading.Event()
    with RecordingServer(delay_s=600, on_message=lambda _: taken.set()) as server:
        process = start(*send_words(server.url), cwd=folder)
        assert taken.wait(30)
        process.kill()
        process.communicate()
        (first,) = server.recorded.messages["ada@example.net"]
    with RecordingServer() as server:
        held = run(*send_words(server.url, "--json"), cwd=folder)
        assert (held.returncode, loads(held.stdout)["uncertain"]) == (1, 1)
        assert server.recorded.total == 0
        again = run(*send_words(server.url, "--resend-uncertain", "--json"), cwd=folder)
        assert (again.returncode, loads(again.stdout)["sent"]) == (0, 1)
        assert server.recorded.messages["ada@example.net"] == [first]


def test_uncertain_ones_of_a_killed_run_are_sent_again_at_the_first_request(folder: Path) -> None:
    write_campaign(folder, ["ada@example.net"])
    taken = threading.Event()
    with RecordingServer(delay_s=600, on_message=lambda _: taken.set()) as server:
        process = start(*send_words(server.url), cwd=folder)
        assert taken.wait(30)
        process.kill()
        process.communicate()
    with RecordingServer() as server:
        again = run(*send_words(server.url, "--resend-uncertain", "--json"), cwd=folder)
        assert (again.returncode, loads(again.stdout)["sent"]) == (0, 1)


def test_a_full_disk_under_the_log_stops_nothing(folder: Path) -> None:
    write_campaign(folder, [f"person{n}@example.net" for n in range(50)])
    with RecordingServer() as server, Path("/dev/full").open("w") as full:
        done = subprocess.run(
            arguments(*send_words(server.url, "-v")),
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=full, stderr=full,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert server.recorded.total == 50


def test_a_server_that_hangs_up_over_one_recipient(folder: Path) -> None:
    people = [f"person{n}@example.net" for n in range(20)]
    write_campaign(folder, ["poison@example.net", *people])
    with RecordingServer(chunking=False, answer=hang_up_over_poison) as server:
        done = run(*send_words(server.url, "--workers", "2", "--retry", "none"), cwd=folder)
        assert done.returncode == 1, done.stderr
        assert set(server.recorded.messages) == set(people)
    assert Counter(states(folder / "mailrace.db").values()) == {"completed": 20, "failed": 1}


def hang_up_over_poison(address: str) -> str:
    if address.startswith("poison"):
        raise ConnectionResetError
    return "250 2.1.5 ok"


def test_ctrl_c_while_waiting_for_a_retry(folder: Path) -> None:
    write_campaign(folder, ["ada@example.net"])
    with RecordingServer(answer=temporary(9)) as server:
        process = start(*send_words(server.url, "-v", "--retry", "1h"), cwd=folder)
        assert process.stderr is not None
        assert json.loads(process.stderr.readline())["event"] == "retrying"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "Stopping." in err
    assert "the next retry is due at" in out


def test_ctrl_c_while_everybody_stands_in_line_at_the_limit(folder: Path) -> None:
    """An hour away is no reason to stay."""
    write_campaign(folder, [f"person{n}@example.net" for n in range(20)])
    with RecordingServer() as server:
        process = start(*send_words(server.url, "-v", rate="1/h"), cwd=folder)
        assert process.stderr is not None
        assert json.loads(process.stderr.readline())["event"] == "sent"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "Stopping." in err
    assert Counter(states(folder / "mailrace.db").values()) == {"completed": 1, "available": 19}


def test_ctrl_c_while_the_server_cannot_be_reached(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        via = f"smtp://127.0.0.1:{door.getsockname()[1]}"
        process = start(*send_words(via, "--workers", "1"), cwd=folder)
        door.accept()[0].close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "sent 0   failed 0   waiting 2   uncertain 0   of 2 people" in out
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_the_people_are_read(folder: Path, number: signal.Signals) -> None:
    command = words()
    command[1] = "-"
    process = subprocess.Popen(
        arguments(*command),
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    # More than a pipe holds: when this returns, the other side has begun to read.
    process.stdin.write(b"email,name\n" + b"person@example.net,Somebody\n" * 10_000)
    process.stdin.flush()
    process.send_signal(number)
    process.wait(timeout=30)
    out, err = process.communicate()
    assert process.returncode == 3
    assert err == b"mailrace: stopped; the same command goes on from here\n"
    assert out == b""
    assert not (folder / "mailrace.db").exists()


def test_a_reader_that_goes_away_and_files_that_are_closed(folder: Path) -> None:
    command = " ".join(f"'{word}'" for word in arguments(*words()))
    piped = run_shell(f"{command} | head -c 0; echo ${{PIPESTATUS[0]}}", folder)
    assert (piped.stdout, piped.stderr) == ("0\n", "")
    for closed in ("<&-", ">&-", "2>&-"):
        (folder / "mailrace.db").unlink()
        done = run_shell(f"{command} {closed}", folder)
        assert (done.returncode, done.stderr) == (0, ""), closed
    assert len(sent(folder)) == 2


def run_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
