"""Curves: what is read of a log, what is drawn of it, and that a page is safe and whole whatever it shows."""

from __future__ import annotations

import html
import math
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runonce.api.comparison import differing, flat
from runonce.api.metrics import Curve, curves_of, read_running, thinned
from runonce.api.shown import Shown
from runonce.cli.chart import chart
from runonce.cli.page import page
from runonce.cli.text import size_text, table, value_text
from runonce.experiment.metrics import parse_metrics

HOSTILE = "</script></style><script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">"


def entry(step: int, value: float, name: str = "loss", index: int = 0):
    return {"step": step, "mode": "train", "index": index, "name": name, "value": value, "time": 0.0}


def test_a_log_is_read_without_what_is_no_entry_and_with_values_that_json_has_not():
    text = "\n".join(
        [
            '{"step": 1, "mode": "train", "index": 3, "name": "loss", "value": 0.5, "time": 2.0}',
            "not json",
            "[1]",
            '{"step": 1}',
            '{"step": 2, "name": "loss", "value": "nan"}',
            '{"step": 3, "name": "loss", "value": 0.25',  # cut by a kill
        ]
    )
    first, second = parse_metrics(text, mode="train", index=1)
    assert first == entry(1, 0.5, index=3) | {"time": 2.0}
    assert (second["index"], math.isnan(second["value"])) == (1, True)
    (one, _) = curves_of([*parse_metrics(text, mode="train", index=1), entry(0, 1.0, "acc")])
    assert (one.name, one.index, list(one.points)) == ("loss", 3, [(1, 0.5)])


def test_of_a_running_job_the_newest_try_of_each_process_counts(tmp_path):
    for name, value in (("0-0", 1.0), ("0-10", 2.0), ("0-9", 3.0), ("1-0", 4.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"step": 0, "name": "loss", "value": {value}}}\n')
    found = read_running(tmp_path, mode="train")
    assert [(one["index"], one["value"]) for one in found] == [(0, 2.0), (1, 4.0)]


def test_a_thinned_curve_keeps_its_ends_its_order_and_every_peak():
    draw = random.Random(0)
    points = [(float(step), draw.random()) for step in range(10_000)]
    points[7_777] = (7_777.0, 50.0)
    kept = thinned(points, 500)
    assert len(kept) <= 502
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert (7_777.0, 50.0) in kept
    assert kept == sorted(kept)
    assert thinned(points[:10], 500) == points[:10]


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [1e300, -1e300],
        [1.7e308, -1.7e308],
        [5e-324, 0.0],
        [1e16, 1e16 + 2],
        [-3.0, -3.0],
        [0.1, 1e9],
    ],
)
def test_a_chart_of_any_values_has_only_places_inside_it(values):
    svg = chart([Curve("loss", 0, [(float(step), value) for step, value in enumerate(values)])], title="loss")
    text = ElementTree.tostring(svg, encoding="unicode")
    assert "nan" not in text
    assert "inf" not in text
    for pair in svg.find("g[@class='line c0']").get("data-places").split():
        across, down = map(float, pair.split(","))
        assert 0 <= across <= 640
        assert 0 <= down <= 260


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not {"src", "href", "onerror"} & {name for name, _ in attrs}


def hostile() -> Shown:
    return Shown(
        name=HOSTILE,
        mode="train",
        cache_key="ab" * 32,
        phase="Succeeded",
        created="2026-11-24T19:03:48+00:00",
        processes=2,
        params={HOSTILE: HOSTILE, "list": [1, HOSTILE], "control": "\x00\x1b\ud800"},
        parts={"entry": HOSTILE, "seed": 0},
        missing=(HOSTILE,),
        final={HOSTILE: 1.5},
        entries=[entry(step, 1 / (step + 1), HOSTILE, index) for step in range(30) for index in range(2)],
        files=[(HOSTILE, 1234, "c" * 64)],
        facts=[{"versions": {HOSTILE: HOSTILE}, "device": HOSTILE}],
    )


def test_a_page_holds_no_text_unescaped_and_names_nothing_outside_itself():
    text = page([hostile()])
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False) in text
    tags = Tags()
    tags.feed(text)
    assert [tags.seen.count(tag) for tag in ("script", "style", "img", "link", "iframe")] == [1, 1, 0, 0, 0]
    assert not re.findall(r"url\(|@import", text)
    text.encode()  # lone surrogates are gone


def test_a_page_opens_in_a_browser_runs_its_script_and_nobody_elses(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: install chromium to open the page of `show --html`")
    path = tmp_path / "page.html"
    path.write_text(page([hostile(), hostile()]), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [browser, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    assert re.search("<html[^>]*data-ready=.yes.", done.stdout), done.stderr
    title = re.search("<title>(.*?)</title>", done.stdout)[1]
    assert html.unescape(title) == f"{HOSTILE} · Runonce"
    assert done.stdout.count("<svg") == 2
    assert done.stdout.count("<polyline") == 4
    assert done.stdout.count('class="tip"') == 2  # the script has been at each chart
    assert "<img" not in done.stdout


def test_nested_parameters_become_columns_of_which_those_stay_that_differ():
    form = {
        "lr": 0.1,
        "optimizer": {"$type": "o:Adam", "value": {"lr": 1, "betas": [0.9]}},
        "none": {"$none": True},
        "e": {},
    }
    assert dict(flat(form, "")) == {
        "lr": 0.1,
        "optimizer.$type": "o:Adam",
        "optimizer.lr": 1,
        "optimizer.betas": [0.9],
        "none": {"$none": True},
        "e": {},
    }
    assert differing([{"a": 1, "b": 1, "c": [1]}, {"a": 1.0, "b": 2, "c": [1]}, {"a": 1, "b": 1}]) == ["b", "c"]


def test_text_is_short_and_columns_are_as_wide_as_their_widest_cell():
    assert [size_text(size) for size in (0, 999, 1234, 1_200_000, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1.23 kB",
        "1.2 MB",
        "5 TB",
    ]
    assert value_text("a\x1b[31m") == "a\ufffd[31m"
    assert value_text("x" * 100) == "x" * 59 + "…"
    assert table(["a", "bb"], [["ccc", "d"]]) == "a    bb\nccc  d"


def test_curves_are_drawn_in_the_terminal_and_without_plotext_the_extra_is_named(monkeypatch):
    from runonce.cli import plot

    drawn = plot.plot([Curve("loss", index, [(0.0, 1.0), (1.0, index)]) for index in range(12)])
    assert "loss (processes 0 to 7 of 12)" in drawn
    assert "process 7" in drawn
    assert "\x1b" not in drawn  # no terminal, no colours
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(plot.InputError, match=re.escape('pip install "runonce[plot]"')):
        plot.plot([Curve("loss", 0, [(0.0, 1.0)])])


def test_style_and_script_travel_with_the_package():
    import runonce.cli

    assert {"page.css", "page.js"} <= {path.name for path in Path(runonce.cli.__file__).parent.iterdir()}
