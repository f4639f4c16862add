"""The documents: their commands and links are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gcnet.cli import main
from gcnet.weights.catalog import find

ROOT = Path(__file__).parent.parent


def documented_commands() -> list[str]:
    """Every `gcnet ...` line in the shell blocks of the README and the guides."""
    commands = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.DOTALL):
            commands += [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [command for command in commands if command.startswith(("gcnet", "make"))]


@pytest.mark.parametrize("command", documented_commands())
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


PAGES = sorted(
    ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)


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
