"""Writes the recipients and the picture of the demonstration campaign into the package.

The same files come out at every run: `python tools/make_demo_data.py [DIRECTORY]`.
"""

import csv
import math
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random

DEMO = Path(__file__).resolve().parent.parent / "src" / "mailrace" / "demo"
GOOD_ROWS = 1000

# Of each script: given names, family names and cities as they are written there, each name with
# the letters for its address; then what stands between the names and whether the family's comes
# first. Given and family names are such that any two of them go together.
SCRIPTS = {
    "Latin": (
        "Zoë zoe,José jose,Søren soren,Łucja lucja,Çağla cagla,Björk bjork,Ágnes agnes,Noël noel,"
        "Małgorzata malgorzata,Þóra thora",
        "Müller mueller,Núñez nunez,Ångström angstrom,Gonçalves goncalves,Łuczak luczak,"
        "Øverland overland,Şahin sahin,Szűcs szucs,Lefèvre lefevre,Kovač kovac",
        "Zürich,Málaga,Tromsø,Łódź,İzmir,Reykjavík,Győr,Orléans",
        " ",
        False,
    ),
    "Greek": (
        "Ελένη eleni,Μαρία maria,Σοφία sofia,Κατερίνα katerina,Άννα anna,Ειρήνη irini,Δήμητρα dimitra,"
        "Ζωή zoi,Αγγελική angeliki,Χριστίνα christina",
        "Παπαδοπούλου papadopoulou,Γεωργίου georgiou,Δημητρίου dimitriou,Νικολάου nikolaou,"
        "Ιωάννου ioannou,Οικονόμου oikonomou,Βασιλείου vasileiou,Αθανασίου athanasiou,"
        "Μυλωνά mylona,Αντωνίου antoniou",
        "Αθήνα,Θεσσαλονίκη,Πάτρα,Ηράκλειο",
        " ",
        False,
    ),
    "Cyrillic": (
        "Ольга olga,Тарас taras,Наталія nataliia,Юрій yurii,Галина halyna,Сергій serhii,Дарина daryna,"
        "Богдан bohdan,Леся lesia,Фёдор fyodor",
        "Мельник melnyk,Шевченко shevchenko,Коваленко kovalenko,Бондар bondar,Ткачук tkachuk,"
        "Гончар honchar,Черныш chernysh,Кравець kravets,Їжак yizhak,Щербак shcherbak",
        "Київ,Львів,Одеса,Харків,Вінниця",
        " ",
        False,
    ),
    "Arabic": (
        "فاطمة fatima,محمد mohammed,ليلى layla,يوسف youssef,مريم maryam,خالد khaled,نور nour,"
        "عمر omar,سلمى salma,طارق tariq",
        "حداد haddad,نجار najjar,طحان tahhan,خوري khoury,منصور mansour,صالح saleh,عباس abbas,"
        "قاسم qasim,درويش darwish,يعقوب yaqoub",
        "القاهرة,بيروت,الدار البيضاء,عمّان,تونس",
        " ",
        False,
    ),
    "Hebrew": (
        "נועה noa,דוד david,תמר tamar,יוסף yosef,מיכל michal,אורי uri,שירה shira,איתי itai,"
        "רחל rachel,גלעד gilad",
        "כהן cohen,לוי levi,מזרחי mizrahi,פרץ peretz,ביטון biton,אברהם avraham,פרידמן friedman,"
        "שפירא shapira,אזולאי azulay,גולן golan",
        "תל אביב,ירושלים,חיפה,באר שבע",
        " ",
        False,
    ),
    "Devanagari": (
        "प्रिया priya,अर्जुन arjun,अनन्या ananya,रोहन rohan,मीरा meera,विक्रम vikram,दीपिका deepika,"
        "सिद्धार्थ siddharth,लक्ष्मी lakshmi,कृष्ण krishna",
        "शर्मा sharma,वर्मा verma,गुप्ता gupta,जोशी joshi,पाटील patil,मिश्रा mishra,देशपांडे deshpande,"
        "चौहान chauhan,त्रिपाठी tripathi,ठाकुर thakur",
        "दिल्ली,मुंबई,पुणे,जयपुर,वाराणसी",
        " ",
        False,
    ),
    "Thai": (
        "สมชาย somchai,มาลี malee,ณัฐพล nattaphon,สุดา suda,ธนกร thanakorn,พิมพ์ชนก phimchanok,"
        "วิชัย wichai,กัญญา kanya,อรุณ arun,จิราพร jiraporn",
        "ศรีสุข srisuk,ทองดี thongdee,แก้วมณี kaewmanee,บุญมี boonmee,วงศ์ทอง wongthong,"
        "สายน้ำ sainam,จันทร์เพ็ญ chanpen,พรหมมา phromma,รัตนกุล rattanakul,ใจดี jaidee",
        "กรุงเทพฯ,เชียงใหม่,ขอนแก่น,ภูเก็ต",
        " ",
        False,
    ),
    "Chinese": (
        "伟 wei,芳 fang,秀英 xiuying,明 ming,静 jing,志强 zhiqiang,丽华 lihua,晓东 xiaodong,雨桐 yutong,"
        "浩然 haoran",
        "王 wang,李 li,张 zhang,刘 liu,陈 chen,杨 yang,黄 huang,赵 zhao,周 zhou,吴 wu",
        "北京,上海,成都,臺北,香港",
        "",
        True,
    ),
    "Japanese": (
        "さくら sakura,陽菜 hina,大翔 hiroto,結衣 yui,蓮 ren,美咲 misaki,健太 kenta,ひかり hikari,翔太 shota,"
        "エミ emi",
        "佐藤 sato,鈴木 suzuki,高橋 takahashi,田中 tanaka,渡辺 watanabe,伊藤 ito,山本 yamamoto,"
        "水車 mizuguruma,小林 kobayashi,髙田 takada",
        "東京,大阪,京都,札幌,福岡",
        " ",
        True,
    ),
    "Korean": (
        "민준 minjun,서연 seoyeon,지우 jiwoo,하은 haeun,도윤 doyun,수빈 subin,예준 yejun,지민 jimin,"
        "은주 eunju,현우 hyunwoo",
        "김 kim,이 lee,박 park,최 choi,정 jung,강 kang,조 cho,윤 yoon,장 jang,임 lim",
        "서울,부산,인천,대구,제주",
        "",
        True,
    ),
    "Georgian": (
        "ნინო nino,გიორგი giorgi,მარიამი mariami,ლევანი levani,თამარი tamari,დავითი daviti,ეკა eka,"
        "ირაკლი irakli,ქეთევანი ketevani,ზურაბი zurabi",
        "ბერიძე beridze,კაპანაძე kapanadze,გელაშვილი gelashvili,წიკლაური tsiklauri,"
        "მელაძე meladze,ჯაფარიძე japaridze,ლომიძე lomidze,ხუციშვილი khutsishvili,"
        "ღვინიაშვილი ghviniashvili,მეწისქვილე metsiskvile",
        "თბილისი,ქუთაისი,ბათუმი",
        " ",
        False,
    ),
    "Armenian": (
        "Անի ani,Արամ aram,Լուսինե lusine,Տիգրան tigran,Նարե nare,Հայկ hayk,Շուշան shushan,"
        "Վահե vahe,Մարիամ mariam,Ծովինար tsovinar",
        "Պետրոսյան petrosyan,Հակոբյան hakobyan,Գրիգորյան grigoryan,Սարգսյան sargsyan,"
        "Խաչատրյան khachatryan,Ջրաղացպանյան jraghatspanyan,Մկրտչյան mkrtchyan,"
        "Ղազարյան ghazaryan,Ավետիսյան avetisyan,Ներսիսյան nersisyan",
        "Երևան,Գյումրի,Վանաձոր",
        " ",
        False,
    ),
}
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


def people(rng: Random) -> list[list[str]]:
    """Returns the good rows: every script about as often as the others, no address twice."""
    everybody = {name: list(persons(name, rng)) for name in SCRIPTS}
    for rows in everybody.values():
        rng.shuffle(rows)
    taken: dict[str, list[str]] = {}
    scripts = list(everybody)
    while len(taken) < GOOD_ROWS:
        rng.shuffle(scripts)
        for script in scripts:
            row = everybody[script].pop()
            taken.setdefault(row[0], row)
    return list(taken.values())[:GOOD_ROWS]


def persons(script: str, rng: Random) -> Iterator[list[str]]:
    given_names, family_names, cities, between, family_first = SCRIPTS[script]
    pairs = product(given_names.split(","), family_names.split(","))
    for index, (given, family) in enumerate(pairs):
        (name, local), (family_name, family_local) = given.split(), family.split()
        parts = (family_name, name) if family_first else (name, family_name)
        yield [
            f"{local}.{family_local}@{DOMAINS[index % 3]}",
            between.join(parts),
            rng.choice(cities.split(",")),
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
    return wheel_at(x - 112, y - 84) or channel_at(x, y) or house_at(x, y) or "paper"


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
    bucket = (angle + 0.05 * (radius - 44)) % twentieth
    return "wood" if 44 < radius < 61 and radius * bucket < 3.4 else None


def channel_at(x: float, y: float) -> str | None:
    if x < 104 and 13 < y < 19:
        return "race"
    if x < 98 and 19 <= y < 23:
        return "wood"
    if y > 23 and (20 < x < 25 or 62 < x < 67):
        return "wood"
    # The fall bends over the end of the channel and meets the buckets.
    bend = 104 + 22 * math.sqrt(max(0.0, (y - 13) / 26))
    return "race" if 13 < y < 40 and bend - 9 < x < bend and x > 98 else None


def house_at(x: float, y: float) -> str | None:
    if 18 < y < 52 and abs(x - 190) < (y - 18) * 1.45 and abs(x - 190) < 46:
        return "roof"
    if 152 < x < 228 and y >= 52:
        window = 12 < abs(x - 190) < 26 and (64 < y < 80 or 94 < y < 110)
        return "window" if window else "wall"
    return None


def png(width: int, height: int, rows: Iterator[bytes]) -> bytes:
    """Returns 8-bit RGB as PNG (ISO/IEC 15948), each row stored as the difference to the one above."""
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
