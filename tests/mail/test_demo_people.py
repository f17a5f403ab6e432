import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from random import Random

from mailrace.mail.intake import open_table, read_recipients, survey
from tests.support.intake import bad, good

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "src" / "mailrace" / "demo"


def test_a_thousand_people_in_many_scripts_and_some_bad_rows() -> None:
    results = list(read_recipients(open_table(DEMO / "people.csv")))
    people = good(results)
    assert len({one.key for one in people}) == 1000
    assert len(people) == 1002, "two are there twice"
    assert len(bad(results)) == 7
    scripts = {unicodedata.name(one.variables["name"][0]).split()[0] for one in people}
    assert scripts == {
        *("LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "DEVANAGARI", "THAI"),
        *("CJK", "HANGUL", "GEORGIAN", "ARMENIAN"),
    }


def test_nobody_real_is_written_to() -> None:
    people = good(list(read_recipients(open_table(DEMO / "people.csv"))))
    reserved = re.compile(r"[a-z.]+@example\.(com|net|org)")
    assert not [one.key for one in people if not reserved.fullmatch(one.key)]


def test_the_first_row_has_every_variable_of_the_template() -> None:
    first = survey(open_table(DEMO / "people.csv"), rng=Random(1)).first
    assert first is not None
    html = (DEMO / "welcome.html").read_text(encoding="utf-8")
    wanted = set(re.findall(r"{[{%](?: if)? (\w+)", html)) - {"else", "endif"}
    assert wanted == set(first.variables)


def test_the_files_are_what_the_tool_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "make_demo_data.py", tmp_path], check=True)
    assert (tmp_path / "people.csv").read_bytes() == (DEMO / "people.csv").read_bytes()
    # Not compared byte by byte: builds of zlib compress differently.
    picture = (tmp_path / "millrace.png").read_bytes()
    assert picture[:33] == (DEMO / "millrace.png").read_bytes()[:33]
    assert len(picture) < 15_000
