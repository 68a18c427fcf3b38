"""Upstream's rule language a second time, for tests: each rule becomes one Python expression.

It shares nothing with ``core.policy`` but the texts, so a mistake there shows as a difference.
"""

import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"\(|\)|(?:%\([^)]*\)s|[^\s()])+")
_TARGET = re.compile(r"%\((.*)\)s")


class Asked:
    """One caller and one target: what a rule's words come to."""

    def __init__(self, texts: Mapping[str, str], who: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        self._texts, self._who, self._target = texts, who, target

    def allows(self, rule: str) -> bool:
        if rule not in self._texts:
            return False
        words = _WORD.findall(self._texts[rule])
        known = {"(": "(", ")": ")", "and": " and ", "or": " or ", "not": " not "}
        answers = {f"_{at}": self._holds(word) for at, word in enumerate(words) if word.lower() not in known}
        text = "".join(known.get(word.lower(), f"_{at}") for at, word in enumerate(words))
        return not words or bool(eval(text.strip(), {"__builtins__": {}}, answers))

    def _holds(self, word: str) -> bool:
        if word in ("@", "!"):
            return word == "@"
        left, _, right = word.partition(":")
        if left == "rule":
            return self.allows(right)
        if left == "role":
            return right in self._who["roles"]
        if left == "field":
            name, _, wanted = right.partition(":")[2].partition("=")
            found = str(self._target.get(name) or "")
            return bool(re.match(wanted[1:], found)) if wanted.startswith("~") else found == wanted
        asked = _TARGET.fullmatch(right)
        there = self._target.get(asked[1]) if asked else right
        if left == "None":
            return there is None
        if left.startswith("'"):
            return there == left.strip("'")
        mine = self._who.get(left) or None
        return mine is None if right == "None" else mine is not None and mine == there
