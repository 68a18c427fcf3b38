"""The project's pages as data: where they are, their links, their code."""

import re
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """Every page for readers."""
    return sorted([README, ROOT / "CHANGELOG.md", ROOT / "images" / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(text: str, language: str) -> list[list[str]]:
    """The lines of each fenced block of a language."""
    return [found[2].splitlines() for found in _BLOCK.finditer(text) if found[1] == language]


def spans(text: str) -> list[str]:
    """Code in running text."""
    return _SPAN.findall(_BLOCK.sub("", text))


def links(text: str) -> list[str]:
    return _LINK.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """The names by which a page's headings are linked to."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_BLOCK.sub("", text))]
    return {heading.strip().replace(" ", "-") for heading in plain}


def tool(name: str) -> ModuleType:
    """A script of ``tools/`` as a module."""
    loader = SourceFileLoader(f"tools_{name}", str(ROOT / "tools" / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module
