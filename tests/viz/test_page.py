"""Bars count everything once; what comes from data cannot become markup."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.viz.page import count_bars, embedded, percent, render_page, size_bars


def test_counts_are_shown_in_steps_that_double() -> None:
    bars = count_bars(np.array([0, 1, 1, 2, 3, 4, 5, 8, 9, 20]))
    assert bars == [
        ("0", 1),
        ("1", 2),
        ("2", 1),
        ("3-4", 2),
        ("5-8", 2),
        ("9-16", 1),
        ("17-32", 1),
    ]
    assert count_bars(np.array([0, 0])) == [("0", 2)]
    assert count_bars(np.zeros(0, int)) == []


@pytest.mark.parametrize("values", [[0.3], [600.0] * 4, [1.0, 4000.0], [500.0, 520, 600], [8, 16, 32]])
def test_sizes_are_each_in_one_bar(values: list[float]) -> None:
    bars = size_bars(np.array(values, float))
    counts = [count for _, count in bars]
    assert sum(counts) == len(values)
    assert len(counts) <= 13
    assert counts[0] > 0
    assert counts[-1] > 0


def test_shares_are_never_rounded_to_nothing_or_all() -> None:
    assert [percent(x) for x in (0, 0.002, 0.05, 0.999, 1)] == ["0%", "<1%", "5%", ">99%", "100%"]


def test_images_are_in_the_page() -> None:
    image = np.full((8, 12, 3), (200, 30, 30), np.uint8)
    head, data = embedded(image).split(",")
    assert head == "data:image/jpeg;base64"
    read = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(read[..., ::-1].astype(int) - image).max() < 6


def test_names_stay_names(tmp_path: Path) -> None:
    template = tmp_path / "own.html"
    template.write_text(
        '{% extends "page.html" %}{% block body %}<p title="{{ name }}">{{ name }}</p>{% endblock %}'
    )
    page = render_page(template, name='<script>"x" & \x1b[2J\ud800 [m8] größer').decode()
    assert "<script>" not in page
    assert page.count("&lt;script&gt;&#34;x&#34; &amp; \\x1b[2J\\ud800 [m8] größer") == 2
    assert "http" not in page


def test_names_that_are_no_utf_8_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ name }} {{ path }}")
    page = render_page(tmp_path / "page.html", name="a\udcff", path=Path("b\udcff"))
    assert page == rb"a\udcff b\udcff"
