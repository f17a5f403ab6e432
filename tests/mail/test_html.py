"""HTML templates: only what has to change does, and the text says the same as the HTML."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateSyntaxError

from mailrace.errors import MisuseError
from mailrace.mail.html import html_to_text, inline_css, local_images, use_inline_images
from mailrace.mail.sandbox import template_environment
from mailrace.mail.templates import CompiledTemplate

TAGS = [
    "{{ name }}",
    "{{ \"a\" if x > 1 and y < 2 else 'b' }}",
    "{{ x['k'] | default(\"<&>\") }}",
    "{% if a > 1 %}",
    "{%- else -%}",
    "{% endif %}",
    "{# a > comment #}",
    "{% raw %}{{ x }}{% endraw %}",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(
    "frame",
    [
        "<p class='a'>Hi TAG & more &nbsp;é</p>",
        '<a class="a" href="TAG?a=1&b=2">x</a>',
        "<table><tr TAG><td class=a>TAG</td></tr>TAG<tr><td>x</table>",
        "<div class='a' TAG>",
        "<p style='color:TAG' class='a'>x",
        "TAG<p class='a'>x</p>TAG",
        "<!-- TAG --><p class='a'>x</p>",
    ],
)
def test_template_tags_come_through_inlining_untouched(frame: str, tag: str) -> None:
    source = frame.replace("TAG", tag)
    inlined = inline_css(f"<style>.a {{ margin: 0 }}</style>{source}")
    assert "margin: 0" in inlined
    inlined = inlined.removeprefix("<style>.a { margin: 0 }</style>")
    # The dash takes the white space before it away, in the template as in its result.
    source = re.sub(r"\s+(?=\{%-)", "", source)
    without_style = re.sub(r' style="margin: 0"|margin: 0; ', "", inlined)
    assert without_style.replace('"', "'") == source.replace('"', "'")


def test_css_goes_into_the_elements() -> None:
    html = (
        '<html><head><style>p { color: red } #x { font-family: "Open Sans" }</style></head>'
        '<body><p id="x" style="margin:0">{{ a }}</p><br/><p/></body></html>'
    )
    inlined = inline_css(html)
    assert "<style" not in inlined
    assert "font-family: 'Open Sans'" in inlined
    assert inlined.count("color: red") == 2
    assert inlined.count("style=") == 2


def test_what_cannot_stand_in_an_attribute_stays_in_the_style() -> None:
    html = (
        "<style>p { color: red } a:hover { color: blue }"
        "@media (max-width: 600px) { p { color: black !important } }</style><p>x <a>y</a></p>"
    )
    inlined = inline_css(html)
    style = inlined[: inlined.index("</style>")]
    assert "a:hover" in style
    assert "@media" in style
    assert "red" not in style
    assert '<p style="color: red">' in inlined


def test_css_variables_are_resolved_for_programs_that_know_none() -> None:
    inlined = inline_css("<style>:root { --brand: red } p { color: var(--brand) }</style><p>x</p>")
    assert '<p style="color: red">' in inlined


@pytest.mark.parametrize(
    "sheet",
    [
        "<style>p { color: {{ color }} }</style>",
        "<style>{% if a %}p { color: red }{% endif %}</style>",
        "<style media='print'>p { color: red }</style>",
        "<!--[if mso]><style>p { color: red }</style><![endif]-->",
    ],
)
def test_a_style_that_depends_on_something_stays_as_it_is(sheet: str) -> None:
    assert inline_css(f"{sheet}<p>x</p>") == f"{sheet}<p>x</p>"


PINK = "<style>.a { color: pink }</style>"


@pytest.mark.parametrize(
    "rest",
    [
        '<p class="{% if x %}a{% endif %}">d</p>',
        "<p class='{{ kind }}'>d</p>",
        '<p {% if x %}class="a"{% endif %}>d</p>',
        "<!--[if mso]><p class=a>d</p><![endif]-->",
        "<noscript><p class=a>d</p></noscript>",
        "{{ note | safe }}",
        "<style>:root { --c: red } @media print { b { color: var(--c) } }</style>",
    ],
)
def test_a_style_sheet_stays_whole_where_its_use_cannot_be_told(rest: str) -> None:
    assert inline_css(f"{PINK}<p class=a>s</p>{rest}") == (
        f'{PINK}<p style="color: pink" class=a>s</p>{rest}'
    )


def test_a_value_elsewhere_in_a_tag_keeps_no_style_sheet() -> None:
    assert inline_css(f'{PINK}<a class=a href="{{{{ u }}}}">s</a>') == (
        '<a style="color: pink" class=a href="{{ u }}">s</a>'
    )


@pytest.mark.parametrize(
    "selector", ["tr:nth-child(2n + 1)", "tr:last-child", "td+td", "p ~ table"]
)
def test_a_rule_about_the_place_is_not_moved_into_a_row_that_repeats(selector: str) -> None:
    sheet = (
        "<style>@import 'x{';/* } */ td, "
        f"{selector} {{ color: red }} a[title='+'] {{ margin: 0 }}</style>"
    )
    rows = "<p></p><table>{% for r in rows %}<tr><td>{{ r }}</td></tr>{% endfor %}</table>"
    inlined = inline_css(f"{sheet}{rows}<a title='+'>x</a>")
    assert inlined.startswith(sheet)
    assert "<p></p><table>{%" in inlined
    assert '<tr><td style="color: red">' in inlined
    assert "<a style=\"margin: 0\" title='+'>" in inlined


def test_a_rule_about_the_place_is_moved_where_the_rows_are_all_there() -> None:
    inlined = inline_css("<style>td+td { color: red }</style><table><tr><td>a<td>b</table>")
    assert inlined == '<table><tr><td>a<td style="color: red">b</table>'


def test_html_without_style_is_not_touched() -> None:
    html = "<P CLASS=a>{{ x }}<td>&nbsp;</P"
    assert inline_css(html) is html


def test_nothing_is_loaded_from_anywhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    sheet = tmp_path_factory.mktemp("css") / "x.css"
    sheet.write_text("p { color: green }")
    html = (
        f'<link rel="stylesheet" href="{sheet}"><link rel="stylesheet" href="file://{sheet}">'
        '<link rel="stylesheet" href="http://127.0.0.1:9/x.css">'
        f'<style>@import url("file://{sheet}"); p {{ margin: 0 }}</style><p>x</p>'
    )
    inlined = inline_css(html)
    assert "green" not in inlined
    assert '<p style="margin: 0">' in inlined
    assert inlined.count("<link") == 3


@settings(max_examples=60)
@given(html=st.text(st.sampled_from(list("<>/p='\" a!style&;:\n")), max_size=60))
def test_what_no_style_sheet_is_about_stays_as_written(html: str) -> None:
    assert inline_css(f"<style>video {{ margin: 0 }}</style>{html}").endswith(html)


@settings(max_examples=60)
@given(html=st.text(st.sampled_from(list("<>/p='\" a{}%#-!style&;\n")), max_size=60))
def test_no_html_breaks_the_tools(html: str) -> None:
    try:
        template_environment(html=True).parse(html)
    except TemplateSyntaxError:
        return
    source = f"<style>p {{ margin: 0 }}</style>{html}"
    CompiledTemplate("text", html_to_text(source), template_environment(html=False))
    inline_css(source)
    local_images(source)


def test_an_open_template_tag_is_an_error_with_its_line() -> None:
    with pytest.raises(MisuseError, match="html line 2"):
        html_to_text("<p>\n{{ name </p>")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\n  two</p><p>Three</p>", "One two\n\nThree\n"),
        ("<h1>Title</h1>Text<br>more<br><br>end", "Title\n\nText\nmore\n\nend\n"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>x", "- a\n- b\n  - c\n\nx\n"),
        ("<ol><li>a<li><p>b</p></ol>", "1. a\n2. b\n"),
        ("<table><tr><td>a</td><td>1</td></tr><tr><td>b</td></tr></table>", "a 1\nb\n"),
        (
            'See <a href="https://x.example/?a=1&amp;b=2">here</a>!',
            "See here (https://x.example/?a=1&b=2)!\n",
        ),
        ('<a href="https://x.example">https://x.example</a>', "https://x.example\n"),
        ('<a href="{{ url }}">{{url}}</a>', "{{url}}\n"),
        ('<a href="{{ u|e }}">{{ u }}</a>', "{{ u }}\n"),
        ('<a href="mailto:a@x.example">a@x.example</a>', "a@x.example\n"),
        ('<a href="#top">up</a>', "up\n"),
        (
            '<a href="https://x.example"><img src="l.png" alt="Logo"></a>',
            "Logo (https://x.example)\n",
        ),
        ('<a href="https://x.example"><img src="l.png"></a>', "https://x.example\n"),
        ("a <b>b</b>, c&nbsp;&lt;d&gt; &eacute;", "a b, c <d> é\n"),
        ("<head><title>T</title><style>p{}</style></head><script>x()</script>b", "b\n"),
        ("<pre>\n a\n  b</pre>c", " a\n  b\n\nc\n"),
        ("a<hr>b", "a\n\n---\n\nb\n"),
        ("<!-- no -->a", "a\n"),
        ("&#123;&#123; x }}", "{{ '{{' }} x }}\n"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ '{{' }} x }}\n"),
        ("<head><title>T</title><meta charset=utf-8><body><p>Hi", "Hi\n"),
        ("", "\n"),
    ],
)
def test_html_becomes_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_a_link_to_a_value_is_kept() -> None:
    assert html_to_text('<a href="{{ url }}?x=1">Go</a>') == "Go ({{ url }}?x=1)\n"


@pytest.mark.parametrize(
    ("html", "rendered"),
    [
        ("<p>Hi {{ name }}</p><p>x</p>", "Hi Ann & <Co>\n\nx\n"),
        ("<ul>{% for i in rows %}<li>{{ i }}</li>{% endfor %}</ul>end", "- 1\n- 2\n\nend\n"),
        ("<ol>{% for i in rows %}<li>{{ i }}</li>{% endfor %}</ol>", "- 1\n- 2\n"),
        ("{% for i in rows %}<p>{{ i }}</p>{% endfor %}", "1\n\n2\n\n"),
        ("<p>{% for i in rows %}{{ i }}<br>{% endfor %}</p>", "1\n2\n"),
        ("<p>a</p>{% if no %}<p>b</p>{% endif %}<p>c</p>", "a\n\nc\n"),
        ("<p>{% if no %}Dear {% else %}Hi {% endif %}{{ name }}</p>", "Hi Ann & <Co>\n"),
        (
            "<table>{% for i in rows %}<tr><td>{{ i }}</td><td>x</td></tr>{% endfor %}</table>",
            "1 x\n2 x\n",
        ),
        ("<!-- {% if no %} --><p>a</p><!-- {% endif %} --><p>b</p>", "b\n"),
        ("<head>{% set q = 5 %}</head>{{ q }}", "5\n"),
        ("a{# <p> #}b", "ab\n"),
        ("<p {% if no %}class=v>VIP{% else %}>std{% endif %}</p>", "std\n"),
        ("<p {% if name %}class=v>VIP{% else %}>std{% endif %}</p>x", "VIP\n\nx\n"),
        (
            "<p {% if no %}class=v{% endif %}>a &gt; b {% if no %}c{% else %}d > e{% endif %}</p>",
            "a > b d > e\n",
        ),
        ("<table {% set c = 'q' %} class=z><tr><td>{{ c }}</td></tr></table>", "q\n"),
        (
            "<a {% if no %}href='https://x'{% else %}href='https://y'{% endif %}>Go</a>",
            "Go (https://y)\n",
        ),
        (
            "<a {% if name %}href=https://x {% else %}href=https://y {% endif %}>Go</a>",
            "Go (https://x)\n",
        ),
        ("<a {% if no %}class=b{% endif %} href='https://x'>Go</a>", "Go (https://x)\n"),
        ("<a {% if no %}class=b{% endif %}>Go</a>", "Go\n"),
    ],
)
def test_the_text_is_a_template_that_renders_like_the_html(html: str, rendered: str) -> None:
    template = CompiledTemplate("text", html_to_text(html), template_environment(html=False))
    assert template.render({"name": "Ann & <Co>", "rows": [1, 2], "no": ""}) == rendered


IMAGES = (
    "<img src=\"logo.png\"><IMG alt=x SRC=img/a%20b.png><img src='logo.png'>"
    '<img src="cid:x"><img src="https://x.example/y.png"><img src="//x/y"><img src="/abs.png">'
    '<img src="data:image/png;base64,xx"><img src="{{ picture }}"><img src=""><img>'
    '<td background="bg.png"><img src="c:\\x.png"><img data-src="no.png">'
)


def test_local_pictures_are_found_once_each() -> None:
    assert local_images(IMAGES) == ("logo.png", "img/a%20b.png", "bg.png")


def test_local_pictures_are_turned_into_content_ids() -> None:
    changed = use_inline_images(IMAGES, {"logo.png": "logo", "bg.png": "bg"})
    assert changed.count('src="cid:logo"') == 2
    assert '<td background="cid:bg">' in changed
    assert local_images(changed) == ("img/a%20b.png",)
    assert '<img src="{{ picture }}">' in changed
