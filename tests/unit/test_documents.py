"""The pages say what is true: links lead somewhere, and every directive in them is one."""

import re
from pathlib import Path

import pytest

from disbatch.cli.options import build_parser
from disbatch.model.taskfile import TaskParser, is_directive, parse_directive

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.tasks"))
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as the links to them are written."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    links = LINK.findall((ROOT / "README.md").read_text())
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links}
    assert set(ROOT.glob("docs/*.md")) <= linked


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_directives_in_pages_are_right(page: Path) -> None:
    for block in re.findall(rb"^```\n(.*?)^```", page.read_bytes(), re.M | re.S):
        for line in block.splitlines():
            if is_directive(line):
                parse_directive(line)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_examples_are_task_files(example: Path) -> None:
    parser = TaskParser(example.name)
    for number, line in enumerate(example.read_bytes().splitlines(keepends=True), 1):
        list(parser.parse(number, line))
    assert parser.tasks > 0


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_every_example_is_in_the_list(example: Path) -> None:
    assert f"({example.name})" in (ROOT / "examples/README.md").read_text()


def test_the_options_page_has_every_option() -> None:
    page = (ROOT / "docs/options.md").read_text()
    documented = set(re.findall(r"(?<=`)--?[A-Za-z][\w-]*", page))
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert documented == known


def test_the_architecture_page_names_every_module_and_no_other() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    package = ROOT / "src/disbatch"
    modules = {path.relative_to(package).as_posix() for path in package.glob("*/**/*.py")}
    listed = set()
    for floor, table in re.findall(r"^### (\w+):(.*?)(?=^### |\Z)", page, re.M | re.S):
        listed |= {f"{floor}/{module}.py" for module in re.findall(r"^\| `([\w/]+)` \|", table, re.M)}
    assert listed == {name for name in modules if not name.endswith("__init__.py")}
    files = [
        f"/{name}" for name in (*modules, *(path.relative_to(ROOT) for path in ROOT.glob("tests/**/*.py")))
    ]
    mentioned = re.findall(r"`(?:src/disbatch)?/?([\w/]+\.py)`", page)
    assert [name for name in mentioned if not any(file.endswith(f"/{name}") for file in files)] == []
