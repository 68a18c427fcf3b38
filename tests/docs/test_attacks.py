"""The table of attacks in ``docs/security.md`` is what the tests try."""

import re

from tests.docs.pages import ROOT

TESTS = ROOT / "tests"
ONE = re.compile(r"\b([A-Z][A-Z0-9]+)-(\d+)((?:, \d+)*)\b")
SPAN = re.compile(r"\b([A-Z][A-Z0-9]+)-(\d+) to \1-(\d+)\b")
FAMILIES = {
    "IMG": 12, "VOL": 6, "TOK": 13, "EC2": 6, "MD": 2, "CON": 6, "API": 7, "QUO": 2, "RES": 2, "LOG": 2, "SYS": 2,
    "CMD": 1, "XML": 2, "TLS": 1, "HZN": 3, "HEAT": 4, "SWF": 7,
}  # fmt: skip
NETWORK = {1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14}
EVERY = {f"{name}-{n}" for name, last in FAMILIES.items() for n in range(1, last + 1)} | {
    f"NET-{n}" for n in NETWORK
}
NO_FAMILY = {"attacks/test_hosts.py"}


def named(text: str) -> set[str]:
    """The families in a text: ``IMG-7``, ``IMG-1 to IMG-5``, ``SYS-1, 2``."""
    found = {f"{name}-{n}" for name, a, b in SPAN.findall(text) for n in range(int(a), int(b) + 1)}
    for name, first, more in ONE.findall(text):
        found |= {f"{name}-{number}" for number in (first, *re.findall(r"\d+", more))}
    return found & EVERY


def rows() -> list[tuple[set[str], list[str], str]]:
    """Per line of the table: its families, the files that try them, and the last cell."""
    text = (ROOT / "docs" / "security.md").read_text().partition("## Attacks that are tried")[2]
    cells = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ")]
    return [(named(first), re.findall(r"`(\S+\.py)`", last), last.strip()) for first, _, last in cells[1:]]


def test_every_family_has_its_line() -> None:
    listed = [family for families, _, _ in rows() for family in families]
    assert sorted(listed) == sorted(set(listed)), "a family stands in two lines"
    assert set(listed) == EVERY


def test_every_line_names_tests_or_says_what_is_not_there() -> None:
    for families, files, last in rows():
        assert files or last.startswith("not there: "), families
        for file in files:
            assert "\ndef test_" in (TESTS / file).read_text(), file


def test_what_a_test_tries_stands_in_the_table() -> None:
    """A file in ``attacks/`` is in the table with each family that it names, and names one."""
    said = {(family, file) for families, files, _ in rows() for family in families for file in files}
    tried = {f"attacks/{path.name}": named(path.read_text()) for path in (TESTS / "attacks").glob("test_*.py")}
    assert {file for file, families in tried.items() if not families} <= NO_FAMILY
    assert {(family, file) for file, families in tried.items() for family in families} - said == set()


def test_what_the_table_says_is_named_by_a_test() -> None:
    """Each family is named by at least one of its line's files in ``attacks/``, if it has such a file."""
    for families, files, _ in rows():
        here = [TESTS / file for file in files if file.startswith("attacks/") and file not in NO_FAMILY]
        known = {family for path in here for family in named(path.read_text())}
        assert not here or families <= known, families - known
