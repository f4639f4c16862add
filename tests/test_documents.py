"""The documents: their commands and links are real."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gcnet
from gcnet.cli import main
from gcnet.weights.catalog import find

ROOT = Path(__file__).parent.parent


PAGES = sorted(
    ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)


def commands_of(page: str) -> list[str]:
    """Every `gcnet ...` and `make ...` line in the shell blocks of a page."""
    lines = []
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        lines += [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("gcnet ", "make "))]


@pytest.mark.parametrize("command", [line for page in PAGES for line in commands_of(page)])
def test_documented_commands_exist(command, capsys):
    """Names of commands, options and models are real; nothing is run."""
    name, *words = shlex.split(command, comments=True)
    if name == "make":
        assert all(f"\n{word}:" in (ROOT / "Makefile").read_text() for word in words)
        return
    with pytest.raises(SystemExit):
        main([words[0], "--help"])
    options = set(re.findall("--[a-z-]+", capsys.readouterr().out))
    for word in words[1:]:
        if word.startswith("--"):
            assert word.split("=")[0] in options
        elif word.startswith(("mask_rcnn", "cascade")) and "." not in word:
            assert find(word)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^):]+\.md)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).is_file(), target


def test_the_page_on_adding_parts_names_what_is_there():
    """Its table names files; what it says to add a line to is in one of them."""
    text = (ROOT / "docs" / "extending.md").read_text()
    package = ROOT / "src" / "gcnet"
    files = {package / name for name in re.findall(r"`([a-z_/]+\.py)`", text)}
    assert files
    assert all(file.is_file() for file in files)
    code = "".join(file.read_text() for file in files)
    for name in (
        "BLOCKS",
        "READERS",
        "LOGGERS",
        "VERBS",
        "class Source",
        "class Sample",
        "def make_backbone",
    ):
        assert name in code


def test_the_reference_has_every_public_name():
    named = set(re.findall(r"^::: gcnet\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    assert named == {name for name in gcnet.__all__ if not name.startswith("_")}


def test_every_page_has_its_place_in_the_site():
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "zensical.toml").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.slow
def test_the_site_needs_no_network(tmp_path):
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    site = tmp_path / "build" / "site"
    assert "Detections" in (site / "search.js").read_text()
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="https?:', page.read_text()), (
            page
        )
