"""The pages say what the code says: names, commands, services, options, links, dependencies."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from cumulet.cli.main import _parser
from cumulet.services import SERVICES
from tests.docs.pages import README, ROOT, anchors, blocks, links, pages, spans, tool

DOCS = ROOT / "docs"
WALK = DOCS / "walk-of-a-server.md"
NUMBERS = re.compile(r"(\d+) files, (\d+) functions of (\d+) lines")
COMMAND = re.compile(r"^(?:\./)?cumulet (.+)$")


# ── generated pages are current ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["options.md", "services.md", "api.md", "policies.md"])
def test_the_reference_is_what_the_generator_writes(name: str) -> None:
    written: dict[str, str] = tool("reference").pages()
    assert (DOCS / "reference" / name).read_text() == written[name], "run tools/reference"


def test_every_call_of_everyday_clients_is_built() -> None:
    found = tool("reference").survey()
    routes = [row for rows, _ in found.values() for row in rows]
    assert sum(row[-1] == "P0" for row in routes) > 140
    missing = [call for _, calls in found.values() for call in calls]
    assert [call for call in missing if call.priority == "P0"] == []


@pytest.mark.parametrize("name", ["map.svg", "four-nodes.svg"])
def test_the_map_is_what_the_generator_draws(name: str) -> None:
    assert (DOCS / name).read_text() == tool("map").pictures()[name], "run tools/map"


def test_no_other_page_is_among_the_generated_ones() -> None:
    assert {path.name for path in (DOCS / "reference").iterdir()} == set(tool("reference").pages())


# ── the walk ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_function_of_the_walk_exists() -> None:
    walk = tool("walk")
    names = walk.names(WALK.read_text())
    assert len(names) > 50
    for name in names:
        walk.find(name)


def test_the_walk_is_as_long_as_it_says() -> None:
    text = WALK.read_text()
    found = NUMBERS.search(text)
    assert found
    files, functions, lines = map(int, found.groups())
    size = tool("walk").named(text)
    assert (size.files, size.functions) == (files, functions), "run tools/walk"
    assert abs(size.function_lines - lines) < lines / 10, "run tools/walk"


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", [README, DOCS / "map.svg", DOCS / "behaviour.md"], ids=lambda page: page.name)
def test_every_service_is_on_the_page(page: Path) -> None:
    text = page.read_text()
    assert [one.name for one in SERVICES if one.name not in text] == []


def test_ports_on_the_map_are_those_of_the_services() -> None:
    text = (DOCS / "map.svg").read_text()
    assert [one.name for one in SERVICES if one.port and f"{one.name}  :{one.port}<" not in text] == []


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────


def commands(page: Path) -> list[str]:
    """What a page tells the reader to type at ``cumulet``, without comments."""
    text = page.read_text()
    lines = [line for block in blocks(text, "sh") for line in block] + spans(text)
    found = [COMMAND.match(line.partition(" #")[0].strip()) for line in lines]
    return list(dict.fromkeys(match[1] for match in found if match))


def choices() -> set[str]:
    return set(next(a.choices for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_of_the_program(page: Path) -> None:
    """A command that is only named must exist; one that is written out must be understood."""
    for line in commands(page):
        words = shlex.split(line)
        assert words[0] in choices(), f"{page.name}: cumulet {line}"
        try:
            if len(words) > 1:
                _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page.name}: cumulet {line} is not understood")


def test_the_readme_shows_every_command() -> None:
    assert choices() - {line.split()[0] for line in commands(README)} == set()


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        for link in links(page.read_text()):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                waiting.append(target)
    assert [str(page.relative_to(ROOT)) for page in pages() if page not in reached] == []


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (DOCS / "decisions").glob("*.md")]
    assert sorted(numbers) == [f"{number:04}" for number in range(1, len(numbers) + 1)]


# ── dependencies ─────────────────────────────────────────────────────────────────────────────────────────────


def python_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(w for extra in project["optional-dependencies"].values() for w in extra)]
    return [re.split(r"[<>=!~\[; ]", wish)[0].lower() for wish in wanted]


def debian_dependencies() -> list[str]:
    files = [ROOT / "tools" / "packages", ROOT / "tools" / "packages-cluster", ROOT / "images" / "packages"]
    return sorted({word for file in files for word in re.sub("#.*", "", file.read_text()).split()})


def test_every_dependency_has_its_line() -> None:
    text = (DOCS / "dependencies.md").read_text()
    cells = {name.strip().lower() for line in text.splitlines() for name in line.split("|")[1:2]}
    named = {name.strip(" `") for cell in cells for name in cell.split(",")}
    assert set(python_dependencies()) - named == set()
    assert set(debian_dependencies()) - named == set()
