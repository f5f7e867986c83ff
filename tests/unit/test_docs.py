"""The guides: links lead somewhere, and columns, files and commands are those that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from experiment import grid
from jellyfish.files.tables import FRAMES, PLANS
from scripts import scenario
from tests.unit.test_house import config, lay_over

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "config" / "README.md"])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)?(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are linked by."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_make_is_told_is_a_target(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    stages = re.findall(r"^STAGES := (.*)$", makefile, re.MULTILINE)[0].split()
    targets = {*stages, *re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE)}
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for target in re.findall(r"^make ([a-z_][\w-]*)", block, re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_every_column_is_explained() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    missing = [name for name in (*FRAMES.names, *PLANS.names) if f"`{name}`" not in page]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in the checkout; those under results/ are made."""
    rooms = "client|docs|envs|experiment|jellyfish|scripts|server|tests|workflow"
    shown = set(re.findall(rf"`((?:{rooms})/[\w./-]*\w\.\w+)`", page.read_text()))
    named = {path for path in shown if not re.search(r"NAME|mine|ours|hosts\.yaml", path)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_guides_scenario_is_one() -> None:
    page = (ROOT / "docs" / "machines.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    asked = config()
    lay_over(asked, yaml.safe_load(block))
    asked["hosts"] = None  # the machines are the reader's
    cells = scenario.load(asked, ROOT).cells.values()
    assert f"The scenario above, {sum(len(grid.runs(asked, cell)) for cell in cells)} runs" in page


def said() -> str:
    """Return all text of the programs, a line each, with ... for what is filled in."""
    lines = []
    for room in ("client", "experiment", "jellyfish"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [n.value if isinstance(n, ast.Constant) else "..." for n in node.values]
                    lines.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    lines.append(node.value)
    return "\n".join(lines)


def test_errors_that_are_explained_can_happen() -> None:
    page = (ROOT / "docs" / "machines.md").read_text()
    table = page.partition("| it says | do |")[2].partition("\n\n")[0]
    told = [
        text
        for row in table.splitlines()[2:]
        for text in re.findall(r"`(.*?)`", row[: row.find(" | ")])
    ]
    assert len(told) > 20
    everything = said()
    for text in told:
        for part in filter(None, (piece.strip(" :;()") for piece in text.split("..."))):
            assert part in everything or part == "No module named", f"{text!r}: {part!r}"
