"""Pages and tables show users' text as it is and keep it from doing harm, by independent parsers."""

import csv

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fer_jax import tables

HOSTILE = "a|b\\|c `x|` <img src=x onerror=f()> [t](http://x) ![i](y) &lt; *e* _u_ ~~s~~\n# h\n- `` <b> `"
# Characters that mean something to Markdown, HTML, CSV or a spreadsheet, and others.
texts = st.text(st.sampled_from("ab 1_`|\\<>[]()!*~&;#-=+@'\",\n\té").filter(str), max_size=40)
derandomized = settings(max_examples=150, deadline=None, derandomize=True)


def parse(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def cells(lines):
    """The inline tokens of each cell of a table that is all of the text."""
    tokens = parse("\n".join(lines))
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    return [token.children for token in tokens if token.type == "inline"]


def shown(children):
    """What a reader sees."""
    return " ".join("".join(token.content for token in children).split())


@derandomized
@example(HOSTILE)
@given(texts)
def test_text_is_shown_as_it_is_in_a_cell_and_in_a_paragraph(text):
    found = cells(tables.table(("one", "two"), [(tables.md(text), "end")]))
    assert len(found) == 4 and shown(found[3]) == "end"
    assert {token.type for token in found[2]} <= {"text", "text_special"}
    assert shown(found[2]) == " ".join(text.split())
    (_, paragraph, _) = parse(f"Its name is {tables.md(text)}.")
    assert {token.type for token in paragraph.children} <= {"text", "text_special"}
    assert shown(paragraph.children) == " ".join(f"Its name is {text}.".split())


@derandomized
@example(HOSTILE)
@example("```<img src=x>`")
@given(texts)
def test_prose_keeps_code_and_emphasis_alone(text):
    allowed = {"text", "text_special", "code_inline", "em_open", "em_close", "strong_open", "strong_close"}
    allowed |= {"s_open", "s_close"}
    found = cells(tables.table(("one", "two"), [(text, "end")]))
    assert len(found) == 4 and shown(found[3]) == "end"
    for children in (found[2], parse(f"See {tables.prose(text)}.")[1].children):
        assert {token.type for token in children} <= allowed
    assert tables.prose("**`a<b>`** on `x`") == "**`a<b>`** on `x`"


@derandomized
@given(texts)
def test_code_holds_the_text(text):
    (token,) = parse(f"{tables.code(text)}")[1].children if text.strip() else parse("`x`")[1].children
    assert token.type == "code_inline" and (not text.strip() or token.content == " ".join(text.split()))


@derandomized
@example([["=1+1", "+x", "-2", "-0.5e3", "@a", "'=b", "''@", "\tc", "-", "d,e"]])
@given(st.lists(st.lists(texts, min_size=2, max_size=5), max_size=4))
def test_csv_is_read_back_and_holds_no_formula(rows):
    written = list(csv.reader(tables.csv_text(rows).splitlines(keepends=True)))
    for row in written:
        for cell in row:
            if cell[:1] in tuple("=+-@\t\r"):
                float(cell)
    assert [[tables.csv_value(cell) for cell in row] for row in written] == rows


def test_figures_in_percent():
    row = {"accuracy": 0.68744, "f1": 0.5, "interval_95": {"accuracy": [0.672, 0.70271], "f1": [0.4, 0.6]}}
    assert tables.percent(row) == "68.74 (67.2 - 70.3)" and tables.percent(row, "f1", 0) == "50 (40.0 - 60.0)"
    assert tables.percent({"value": 0.5, "interval_95": [0.4, 0.6]}, "value", 1) == "50.0 (40.0 - 60.0)"
    assert tables.percent(None) == tables.percent({"accuracy": None, "interval_95": None}) == ""


def test_templates_escape_by_default(tmp_path, monkeypatch):
    """For Markdown and for HTML; a macro's result and a block are escaped once, and a typo is an error."""
    page = "{% macro m(x) %}{{ x }}{% endmacro %}\n{% if x %}\n{{ m(x) }} {{ x|code }} {{ 1 }}\n{% endif %}\n"
    for name, text in (("page.md.j2", page), ("page.html.j2", "<p>{{ x }}</p>"), ("typo.md.j2", "{{ y }}")):
        path = tmp_path / "room" / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "room" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert tables.render("room", "page.md.j2", x="<b>|") == "\\<b>\\| `<b>|` 1\n"
    assert tables.render("room", "page.html.j2", x="<b>|") == "<p>&lt;b&gt;|</p>"
    with pytest.raises(jinja2.UndefinedError, match="'y' is undefined"):
        tables.render("room", "typo.md.j2")
