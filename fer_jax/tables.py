"""Renders Markdown and CSV that are safe for text from users.

Pages are Jinja2 templates in the folder `templates/` of the package that renders them. Markdown templates
escape every string with `md`, unless a filter has already made it safe.
"""

import csv
import functools
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

_HARMFUL = r"\\|[\[\]|]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\S)[#>]"
_SPECIAL = re.compile(_HARMFUL + r"|[`*~]|(?<![^\W_])_|_(?![^\W_])")
# A code span is closed by a run of exactly as many backticks as open it.
_CODE_OR_HARMFUL = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|" + _HARMFUL)
_BARE_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def md(text: str) -> Markup:
    """Escapes text for Markdown, on one line; returns a `Markup` unchanged."""
    return text if isinstance(text, Markup) else Markup(_SPECIAL.sub(r"\\\g<0>", _on_one_line(text)))


def prose(text: str) -> Markup:
    """Returns a Markdown sentence that keeps code spans and emphasis, but no HTML, link, or image."""
    if isinstance(text, Markup):
        return text
    return Markup(_CODE_OR_HARMFUL.sub(lambda m: m[0] if m[1] else "\\" + m[0], _on_one_line(text)))


def code(text: str) -> Markup:
    """Returns the text as a code span."""
    text = _on_one_line(text).strip()
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if len(fence) > 1 or not text else ""
    return Markup(f"{fence}{pad}{text}{pad}{fence}")


def md_cell(value: Any) -> Markup:
    """Returns a value as a cell of a Markdown table: `prose` without bare pipes in code spans."""
    return Markup(_BARE_PIPE.sub(r"\1\\|", prose(value if isinstance(value, str) else str(value))))


def _on_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Returns the lines of a Markdown table; each cell goes through `md_cell`."""
    lines = [list(map(md_cell, row)) for row in (head, *rows)]
    return [f"| {' | '.join(row)} |" for row in (lines[0], ["---"] * len(head), *lines[1:])]


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Returns rows as CSV without formulas for spreadsheets.

    Prepends an apostrophe to cells that start with =, +, -, @, a tab, or a carriage return, and are not
    numbers (https://owasp.org/www-community/attacks/CSV_Injection), and to cells that `csv_value` would
    change.
    """
    text = io.StringIO()
    cells = [[_csv_cell(str(value)) for value in row] for row in rows]
    # By default Python 3.11 does not quote a carriage return, which ends a row.
    quoting = csv.QUOTE_ALL if any("\r" in cell for row in cells for cell in row) else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(cells)
    return text.getvalue()


def _csv_cell(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_value(cell: str) -> str:
    """Returns the text that `csv_text` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def percent(part: dict[str, Any] | None, key: str = "accuracy", digits: int = 2) -> str:
    """Returns a metric and its interval in percent, such as "68.74 (67.2 - 70.3)"; "" for None.

    Metrics are in [0, 1]; 'interval_95' is [low, high] of the metric, or of each metric by name.
    """
    if not part or part[key] is None:
        return ""
    pair = part["interval_95"]
    return f"{100 * part[key]:.{digits}f} ({interval(pair[key] if isinstance(pair, dict) else pair, 1, 100)})"


def interval(pair: Sequence[float], digits: int = 4, scale: float = 1) -> str:
    """Returns an interval, such as "0.6720 - 0.7030"."""
    low, high = pair
    return f"{scale * low:.{digits}f} - {scale * high:.{digits}f}"


def render(package: str | None, name: str, /, **values: Any) -> str:
    """Renders a template in a package's folder `templates`; .html.j2 escapes for HTML, others with `md`.

    Raises:
      jinja2.UndefinedError: the template uses an undefined variable.
    """
    return _environment(package).get_template(name).render(values)


@functools.cache
def _environment(package: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        autoescape=True,  # which leaves alone what `_finalize` returns
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": code,
        "interval": interval,
        "json": lambda value: json.dumps(value, sort_keys=True),
        "md": md,
        "md_cell": md_cell,
        "num": format,
        "pct": lambda value, spec=".2f": format(100 * value, spec),
        "percent": percent,
        "prose": prose,
    }
    environment.globals["table"] = lambda head, rows: Markup("\n".join(table(head, rows)))
    return environment


@jinja2.pass_context
def _finalize(context: jinja2.runtime.Context, value: Any) -> Any:
    is_markdown = not (context.name or "").endswith(".html.j2")
    return md(value) if is_markdown and isinstance(value, str) else value
