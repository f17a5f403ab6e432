"""Templates: strict, sandboxed, and with errors that a person can act on."""

import re

import pytest

from mailrace.errors import MisuseError
from mailrace.mail.sandbox import template_environment
from mailrace.mail.templates import CompiledTemplate

PEOPLE = {"name": "Ann <b>", "city": "Köln", "link": "https://example.com/?a=1&b=2"}


def compiled(source: str, *, part: str = "html", html: bool = True) -> CompiledTemplate:
    return CompiledTemplate(part, source, template_environment(html=html))


def test_values_are_escaped_in_html_only() -> None:
    assert compiled("Hi {{ name }}").render(PEOPLE) == "Hi Ann &lt;b&gt;"
    assert compiled("Hi {{ name }}", html=False).render(PEOPLE) == "Hi Ann <b>"


def test_the_last_line_end_is_kept() -> None:
    assert compiled("a\n{{ city }}\n").render(PEOPLE) == "a\nKöln\n"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a\nb {{ name", "html line 2: unexpected end of template"),
        ("<style>@media print{#x{}}</style>", "put a space between { and #"),
        ("{% if name %}", "html line 1: Unexpected end of template"),
        ("{{ name|uper }}", "html line 1: No filter named 'uper'"),
        ("a\n{% include 'x' %}", "html line 2: one template cannot use another"),
        ("{% extends 'x' %}", "one template cannot use another"),
        ("{% import 'x' as y %}", "one template cannot use another"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "html: the template is nested too deeply"),
        ("{{ city|random }}", "No filter named 'random'"),
    ],
)
def test_a_wrong_template_is_refused_with_its_line(source: str, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem) as caught:
        compiled(source)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_columns() -> None:
    with pytest.raises(MisuseError) as caught:
        compiled("a\n{{ nmae }}").render(PEOPLE)
    assert str(caught.value) == (
        "html line 2: no column named 'nmae'; did you mean 'name'? the columns are name, city, link"
    )


def test_an_unknown_name_is_found_where_a_template_does_not_come() -> None:
    template = compiled("a\n{% if name == 'x' %}\n{{ cupon }}{% else %}{{ city }}{% endif %}")
    with pytest.raises(MisuseError) as caught:
        template.check_columns(("name", "city", "coupon"))
    assert str(caught.value) == (
        "html line 3: no column named 'cupon'; did you mean 'coupon'? "
        "the columns are name, city, coupon"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ nmae | default('x') }}",
        "{{ nmae | d }}",
        "{% if nmae is defined %}{{ nmae }}{% endif %}",
        "{% if nmae is undefined %}x{% else %}{{ nmae }}{% endif %}",
        "{% for nmae in name %}{{ nmae }}{{ loop.index }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{{ varargs }}{{ kwargs }}{% endmacro %}",
        "{% block b %}{{ name }}{% endblock %}{{ self.b() }}",
        "{% set nmae = 1 %}{{ nmae }}{{ range(3) | list }}{% set n = namespace() %}",
    ],
)
def test_a_name_that_the_template_prepares_for_need_not_be_a_column(source: str) -> None:
    compiled(source).check_columns(("name",))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ range }}", "to print range, "),
        ("{{ name.upper }}", "to print upper, which is no value; did you mean upper()?"),
        ("{% macro m() %}{% endmacro %}{{ m }}", "to print m, "),
        ("{% for a in name %}{{ loop }}{% endfor %}", "to print loop, "),
        ("{{ name | map('upper') }}", "to print a list that is not made yet; add | join"),
    ],
)
@pytest.mark.parametrize("html", [True, False])
def test_what_is_no_value_is_not_printed(source: str, said: str, html: bool) -> None:
    with pytest.raises(MisuseError, match=re.escape(f"html: not allowed in a template: {said}")):
        compiled(source, html=html).render(PEOPLE)


@pytest.mark.parametrize("name", ["joiner", "cycler", "dict", "lipsum"])
def test_no_function_stands_in_for_a_missing_column(name: str) -> None:
    with pytest.raises(MisuseError, match=f"no column named '{name}'"):
        compiled(f"{{{{ {name} }}}}").render(PEOPLE)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ x | e }}", "Tom & <Jerry>"),
        ("{{ x | escape | upper }}", "TOM & <JERRY>"),
        ("{{ '<b>a</b><br>2 &lt; 3 < 4' | safe }}", "a\n2 < 3 < 4"),
        ("{{ x | e | replace('Tom', '<i>Tim</i>') | safe }}", "Tim & <Jerry>"),
        ("{{ x }}", "Tom & <Jerry>"),
    ],
)
def test_html_in_a_template_made_from_html_is_shown_as_text(source: str, text: str) -> None:
    environment = template_environment(html=False, from_html=True)
    assert CompiledTemplate("html", source, environment).render({"x": "Tom & <Jerry>"}) == text


def test_many_columns_are_not_all_listed() -> None:
    with pytest.raises(MisuseError) as caught:
        compiled("{{ x }}").render({f"column{number}": "" for number in range(500)})
    assert len(str(caught.value)) < 400
    with pytest.raises(MisuseError, match="there are no columns"):
        compiled("{{ x }}").render({})


@pytest.mark.parametrize(
    "source", ["{{ nmae }}", "{{ nmae|upper }}", "{% if nmae %}{% endif %}", "{{ nmae ~ '' }}"]
)
def test_an_undefined_name_is_an_error_wherever_it_is_used(source: str) -> None:
    with pytest.raises(MisuseError, match="no column named 'nmae'"):
        compiled(source).render(PEOPLE)


def test_a_template_may_ask_whether_a_column_exists() -> None:
    assert compiled("{% if x is defined %}{{ x }}{% endif %}{{ y|default('-') }}").render({}) == "-"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ name|attr('__' ~ 'class__') }}",
        "{{ '{0.__class__}'.format(name) }}",
        "{{ '{a.__class__}'.format_map({'a': name}) }}",
        "{{ ('{0.__class__}'|format)(name) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ range.__class__ }}",
        "{% set x = [] %}{{ x.append(1) }}",
        "{% set x = {} %}{{ x.update({'a': 1}) }}",
    ],
)
def test_nothing_leads_out_of_the_sandbox(source: str) -> None:
    with pytest.raises(MisuseError):
        compiled(source).render(PEOPLE)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 99999999 }}",
        "{{ 99999999 * [1] }}",
        "{{ 9 ** 9999999 }}",
        "{{ '%099999999d' % 1 }}",
        "{{ '%*d' % (99999999, 1) }}",
        "{{ '%99999999d' | format(1) }}",
        "{{ name | center(99999999) }}",
        "{{ name | indent(99999999) }}",
        "{{ name.ljust(99999999) }}",
        "{% for i in range(99999999) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_runs_away_is_stopped(source: str) -> None:
    with pytest.raises(MisuseError, match="OverflowError"):
        compiled(source).render(PEOPLE)


def test_ordinary_arithmetic_is_not_in_the_way() -> None:
    source = "{{ 3 * 4 }} {{ '-' * 3 }} {{ 2 ** 10 }} {{ '%05.2f' % 3.14159 }} {{ 7 % 4 }}"
    assert compiled(source).render({}) == "12 --- 1024 03.14 3"


def test_what_fails_in_a_template_names_the_part() -> None:
    with pytest.raises(MisuseError, match=r"^subject: ZeroDivisionError: division by zero$"):
        compiled("{{ 1 / 0 }}", part="subject").render({})


def test_a_template_tells_what_it_wants() -> None:
    template = compiled("{{ name }}{% for i in range(3) %}{{ i }}{% endfor %}{% if x %}{% endif %}")
    assert template.wanted == {"name", "x"}


@pytest.mark.parametrize(
    ("source", "constant"),
    [
        ("", ""),
        ("a < b\n", "a < b\n"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ x }}", None),
    ],
)
def test_a_template_without_tags_is_known_to_be_constant(source: str, constant: str | None) -> None:
    assert compiled(source).constant == constant


def test_the_pieces_that_are_the_same_for_everyone_are_known_beforehand() -> None:
    source = (
        "one {{ name }} two {% if city %}three{% else %}four{% endif %}"
        "{% macro m(x) %}five {{ x }} six{% endmacro %}{{ m(1) }}"
        "{% block b %}seven {{ name }}{% endblock %}"
        "{% for i in range(2) %}eight{% endfor %}"
        "{% set z %}nine {{ name }}{% endset %}"
    )
    constants = compiled(source).constants
    expected = {"one ", " two ", "three", "four", "five ", " six", "seven ", "eight", "nine "}
    assert expected <= constants
    assert compiled(source).render({"name": "Ann", "city": ""}) == (
        "one Ann two fourfive 1 sixseven Anneighteight"
    )


def test_a_template_does_not_see_what_another_one_set() -> None:
    environment = template_environment(html=True)
    CompiledTemplate("a", "{% set x = 1 %}{{ x }}", environment).render({})
    with pytest.raises(MisuseError, match="no column named 'x'"):
        CompiledTemplate("b", "{{ x }}", environment).render({})
