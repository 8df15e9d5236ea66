"""Tests with independent parsers that pages and tables show text from users literally."""

import csv

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fer_jax import tables

HOSTILE = "a|b\\|c `x|` <img src=x onerror=f()> [t](http://x) ![i](y) &lt; *e* _u_ ~~s~~\n# h\n- `` <b> `"
# Characters with a meaning in Markdown, HTML, CSV, or spreadsheets, and others.
texts = st.text(st.sampled_from("ab 1_`|\\<>[]()!*~&;#-=+@'\",\n\té").filter(str), max_size=40)
derandomized = settings(max_examples=150, deadline=None, derandomize=True)


def parse(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def shown_in(markdown):
    """Returns the token types and the visible text of a table cell and of a paragraph."""
    tokens = parse("\n".join(tables.table(("one", "two"), [(markdown, "end")])))
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    cells = [token.children for token in tokens if token.type == "inline"]
    assert len(cells) == 4 and cells[3][0].content == "end"
    for children in (cells[2], parse(f"See {markdown}.")[1].children):
        yield {token.type for token in children}, "".join(token.content for token in children)


@derandomized
@example(HOSTILE)
@given(texts)
def test_text_is_shown_as_it_is(text):
    for kinds, shown in shown_in(tables.md(text)):
        assert kinds <= {"text", "text_special"}
        assert shown.removeprefix("See ").removesuffix(".").split() == text.split()


@derandomized
@example(HOSTILE)
@example("```<img src=x>`")
@given(texts)
def test_prose_keeps_code_and_emphasis_alone(text):
    allowed = {f"{kind}_{end}" for kind in ("em", "strong", "s") for end in ("open", "close")}
    for kinds, _ in shown_in(tables.prose(text)):
        assert kinds <= allowed | {"text", "text_special", "code_inline"}
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
    """This holds for Markdown and HTML. Macros and blocks are escaped once; undefined names are errors."""
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
