"""Tests metrics by group against scikit-learn, gaps against normal approximations, and errors."""

import json

import numpy as np
import pytest
from helpers import random_case
from PIL import Image
from sklearn import metrics

from fer_jax.evaluation.metrics import calibration, subgroups
from fer_jax.evaluation.report import subgroups_report

COPIES = (np.arange(600) % 4 == 0).astype(np.int8)


@pytest.fixture(scope="module")
def case():
    """Returns 600 predictions and a table: age in thirds, half of the young permuted, and a rare source."""
    probs, labels = random_case(0, count=600)
    ages = np.array(["young", "middle", "old"])[np.arange(600) % 3]
    spoiled = (ages == "young") & (np.arange(600) % 2 == 0)
    probs[spoiled] = np.roll(probs[spoiled], 1, axis=1)
    ids = [f"face {i}" for i in range(600)]
    sources = np.where(np.arange(600) < 10, "film", np.where(np.arange(600) < 590, "web", ""))
    values = {name: (age, source) for name, age, source in zip(ids, ages, sources, strict=True)}
    del values["face 599"]
    table = subgroups.Table("faces.csv", ("age", "source"), values | {"other": ("old", "web")})
    return probs, labels, ids, ages, table


@pytest.fixture(scope="module")
def found(case):
    probs, labels, ids, _, table = case
    return subgroups.compare(probs, labels, ids, None, table, COPIES)


def test_each_group_is_scored_by_itself(case, found):
    probs, labels, _, ages, _ = case
    assert (found["in_split"], found["not_in_split"], found["without_row"]) == (599, 1, 1)
    age = found["attributes"]["age"]
    assert list(age["groups"]) == ["middle", "old", "young"] and age["not_given"] == 0
    for value, row in age["groups"].items():
        chosen = (ages == value) & (np.arange(600) < 599)
        y, p = labels[chosen], probs[chosen]
        assert row["n"] == chosen.sum()
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(y, p.argmax(1)))
        assert row["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, p.argmax(1)))
        assert row["macro_f1"] == pytest.approx(metrics.f1_score(y, p.argmax(1), average="macro"))
        assert row["ece"] == pytest.approx(calibration.ece(p, y))
        for metric in subgroups.METRICS:
            low, high = row["interval_95"][metric]
            assert low < high
        # The interval of a proportion, by its standard error.
        spread = 2 * 1.96 * np.sqrt(row["accuracy"] * (1 - row["accuracy"]) / row["n"])
        assert np.diff(row["interval_95"]["accuracy"]) == pytest.approx(spread, rel=0.12)
    source = found["attributes"]["source"]
    assert list(source["groups"]) == ["film", "web"] and source["not_given"] == 9


def test_the_largest_gap_has_the_interval_of_a_difference(found):
    found = found["attributes"]
    rows, gap = found["age"]["groups"], found["age"]["gaps"]["accuracy"]
    assert gap["lowest"] == "young" and gap["highest"] in ("middle", "old")
    high, low = rows[gap["highest"]], rows["young"]
    assert gap["value"] == pytest.approx(high["accuracy"] - low["accuracy"])
    error = np.sqrt(sum(r["accuracy"] * (1 - r["accuracy"]) / r["n"] for r in (high, low)))
    expected = [gap["value"] - 1.96 * error, gap["value"] + 1.96 * error]
    assert gap["interval_95"] == pytest.approx(expected, abs=0.012) and gap["interval_95"][0] > 0
    # Groups of ten faces are too small for gaps.
    assert found["source"]["gaps"] == dict.fromkeys(subgroups.GAPS)


def test_copies_are_drawn_together(case):
    probs, labels, ids, _, table = case
    copies = np.arange(600) // 6 * 3 + np.arange(600) % 3  # pairs within an age
    first = copies // 3 * 6 + copies % 3
    probs, labels = probs[first], labels[first]
    alone, together = (
        subgroups.compare(probs, labels, ids, groups, table)["attributes"]["age"]["groups"]["old"]
        for groups in (None, copies)
    )
    assert alone["accuracy"] == together["accuracy"] and alone["without_near"] is None
    widths = [np.diff(row["interval_95"]["accuracy"]) for row in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(2), rel=0.1)


def test_without_copies_of_the_training(case, found):
    probs, labels, ids, _, table = case
    ages = subgroups.match(table, ids)["age"]
    for age, row in found["attributes"]["age"]["groups"].items():
        kept = (ages == age) & (COPIES == 0)
        part = row["without_near"]
        assert part["n"] == kept.sum()
        assert part["accuracy"] == pytest.approx((probs[kept].argmax(1) == labels[kept]).mean())
        assert part["interval_95"][0] < part["accuracy"] < part["interval_95"][1]


@pytest.mark.drawn
def test_written_beside_the_report(found, tmp_path):
    subgroups_report.write(tmp_path, found)
    assert json.loads((tmp_path / "subgroups.json").read_text()) == found
    page = (tmp_path / "subgroups.md").read_text()
    assert "599 of its rows are images of the split, 1 are not; 1 images have no row" in page
    row = found["attributes"]["age"]["groups"]["old"]
    assert f"| old | 199 | {row['accuracy']:.3f} (" in page and "9 images have no value." in page
    assert "over `young`." in page and "fewer than two groups have 30 images" in page
    figure = subgroups_report.plot(found, tmp_path / "again.png")
    assert len(figure.axes) == 8
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "middle (200)", "old (199)", "young (200)"
    ]  # fmt: skip
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines[1::2]]
    assert dots == [row["accuracy"] for row in found["attributes"]["age"]["groups"].values()]
    with Image.open(tmp_path / "subgroups.png") as image:
        assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8-sig", ","), ("utf-8", ";"), ("utf-16", "\t"), ("utf-16-le", ";")]
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, encoding, delimiter):
    path = tmp_path / "faces.csv"
    lines = 'age, id ,"source"', ' young,a," the, web "', "", "old,b,", ""
    text = "\r\n".join(lines).replace(",", delimiter).replace(f"the{delimiter}", "the,")
    path.write_bytes(text.encode(encoding))
    table = subgroups.read_table(path)
    assert table.attributes == ("age", "source")
    assert table.values == {"a": ("young", "the, web"), "b": ("old", "")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "row 1: expected one column 'id', found nothing"),
        ("name,age\na,old\n", "row 1: expected one column 'id', found 'name', 'age'"),
        ("id\na\n", "row 1: expected the column 'id' and attribute columns"),
        ("id,age,age\na,1,2\n", "with unique names, found 'id', 'age', 'age'"),
        ("id,age\na,old\nb\n", r"row 3: 1 cells, expected 2 \(id, age\)"),
        ("id,age\na,old\nb,old\n\na,young\n", "row 5: the id 'a' is already in row 2"),
        ('id,age\na,"old\nb,young\n', "row 3: not CSV .unexpected end of data.; is there an unclosed quote"),
    ],
)
def test_tables_that_are_none(tmp_path, text, expected):
    path = tmp_path / "faces.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected) as error:
        subgroups.read_table(path)
    assert str(path) in str(error.value)


def test_tables_that_do_not_fit(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_bytes(b"id,age\n\xff\xfe,old\n")
    with pytest.raises(ValueError, match="cannot be read as text in UTF-8 or UTF-16"):
        subgroups.read_table(path)
    table = subgroups.Table("faces.csv", ("age",), {"x": ("old",)})
    message = "faces.csv: none of its ids is in the split; it has 'x', the split 'face 0'"
    with pytest.raises(ValueError, match=message):
        subgroups.match(table, ["face 0"])
    ids = [f"face {i}" for i in range(51)]
    table = subgroups.Table("faces.csv", ("age",), {name: (name,) for name in ids})
    with pytest.raises(ValueError, match="'age' has 51 different values, expected at most 50 categories"):
        subgroups.match(table, ids)
