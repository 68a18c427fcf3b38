"""Stories as tables: a command of the client, and what it must say.

What a step may expect:

* ``"text"``: it succeeds and its output matches this pattern (``""``: it prints nothing)
* ``{"field": value}``: it succeeds; as JSON it is an object with these fields, or a list with such a row
* ``["column", ...]``: it succeeds; it is a list that is not empty and has exactly these columns
* ``Without(field=value)``: it succeeds; it is a list without such a row
* ``Fails("text")``: it ends with an error that matches this pattern
* ``Until(...)``: one of the above, at last

Nothing may be printed as an error or warning beside it, but for what the client says of its own old commands.

A value is text (``"{name}"`` stands for what was kept before), a pattern, ``Keep`` (anything, kept under a name for
later steps), ``...`` (anything but nothing), or any other value, which must be equal.
"""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.machine import BIN, Machine

PROGRAM = Path(__file__).parent / "client.py"
PATIENCE_SECONDS = 120
DEPRECATED = re.compile(r"^(API has been deprecated; consider|This command is deprecated).*\n", re.MULTILINE)
NOTHING: tuple[object, ...] = (None, "", [], {})


@dataclass(frozen=True)
class Keep:
    name: str


@dataclass(frozen=True)
class Fails:
    text: str


@dataclass(frozen=True, init=False)
class Without:
    row: Mapping[str, Any]

    def __init__(self, **row: Any) -> None:
        object.__setattr__(self, "row", row)


Plain = str | Mapping[str, Any] | Sequence[str] | Fails | Without


@dataclass(frozen=True)
class Until:
    expected: Plain


Step = tuple[str, Plain | Until]


@dataclass(frozen=True)
class Answer:
    """``requests`` are the method and address of each, in their order; none for the first command of a process."""

    code: int
    out: str
    err: str
    requests: Sequence[str]


@dataclass
class Client:
    """The client as a process that goes on; ``kept`` is what the steps remember."""

    process: subprocess.Popen[str]
    kept: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, machine: Machine) -> "Client":
        words = machine.command([str(BIN / "python"), str(PROGRAM)])
        pipe = subprocess.PIPE
        client = cls(subprocess.Popen(words, env=machine.env, cwd="/", stdin=pipe, stdout=pipe, text=True))
        client.run("token issue")
        return client

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)

    def run(self, command: str) -> Answer:
        assert self.process.stdin
        assert self.process.stdout
        words = shlex.split(self._fill(command))
        print(json.dumps(words), file=self.process.stdin, flush=True)
        return Answer(**json.loads(self.process.stdout.readline()))

    def ask(self, command: str) -> Any:
        """Its answer as data."""
        answer = self.run(f"{command} -f json")
        assert answer.code == 0, f"{command}: exit {answer.code}\n{answer.err}"
        return json.loads(answer.out)

    def tell(self, steps: Sequence[Step], after: Sequence[str] = ()) -> None:
        """Take the steps; then ``after``, for what may be left of a story that failed."""
        try:
            for command, expected in steps:
                self.step(command, expected)
        finally:
            for command in after:
                self.run(command)

    def step(self, command: str, expected: Plain | Until) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        wanted, patient = (expected.expected, True) if isinstance(expected, Until) else (expected, False)
        problem = self._problem(command, wanted)
        while problem and patient and time.monotonic() < deadline:
            time.sleep(0.2)
            problem = self._problem(command, wanted)
        assert not problem, f"openstack {self._fill(command)}\n{problem}"

    def _problem(self, command: str, expected: Plain) -> str:
        """What is wrong with the command's answer; "" if nothing is."""
        plain = isinstance(expected, str | Fails)
        answer = self.run(command if plain else f"{command} -f json")
        said = f"exit {answer.code}\n{answer.out}{answer.err}\n" + "\n".join(answer.requests)
        if isinstance(expected, Fails):
            right = answer.code != 0 and re.search(self._fill(expected.text), answer.out + answer.err)
            return "" if right else f"should fail with {expected.text}: {said}"
        if answer.code or DEPRECATED.sub("", answer.err):
            return f"failed or warned: {said}"
        if isinstance(expected, str):
            said_something = bool(answer.out.strip()) and answer.out.strip() != "[]"
            right = said_something == bool(expected) and re.search(self._fill(expected), answer.out)
            return "" if right else f"should say {expected or 'nothing'}: {said}"
        wrong = self._judge(json.loads(answer.out), expected)
        return f"{wrong}: {said}" if wrong else ""

    def _judge(self, found: Any, expected: Mapping[str, Any] | Sequence[str] | Without) -> str:
        rows = found if isinstance(found, list) else [found]
        if isinstance(expected, Without):
            return f"there is a row {expected.row}" if any(self._fits(row, expected.row) for row in rows) else ""
        if isinstance(expected, Mapping):
            return "" if any(self._fits(row, expected) for row in rows) else f"nothing with {dict(expected)}"
        columns = list(rows[0]) if rows else []
        return "" if columns == list(expected) else f"columns {columns} instead of {list(expected)}"

    def _fits(self, row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        if not all(name in row and self._same(row[name], value) for name, value in wanted.items()):
            return False
        self.kept |= {value.name: str(row[name]) for name, value in wanted.items() if isinstance(value, Keep)}
        return True

    def _same(self, found: Any, wanted: Any) -> bool:
        if wanted is ...:
            return found not in NOTHING
        if isinstance(wanted, Keep):
            return found not in NOTHING
        if isinstance(wanted, re.Pattern):
            return wanted.search(str(found)) is not None
        if isinstance(wanted, list):
            wanted = [self._fill(each) if isinstance(each, str) else each for each in wanted]
        return bool(found == (self._fill(wanted) if isinstance(wanted, str) else wanted))

    def _fill(self, text: str) -> str:
        for name, value in self.kept.items():
            text = text.replace(f"{{{name}}}", value)
        return text
