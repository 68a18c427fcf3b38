"""``cumulet deploy``: the nodes of a topology brought to what it says, over ssh.

Each node is looked at first, by its own package if it has it: what is right already is not touched, and a dry run
ends there.  Then, for each, the package (this checkout's, and what it needs by ``tools/setup``), its parcel (the
files of ``core.parcels``), and ``cumulet up``.  The first controller goes first: it makes the cloud's secrets, and
the parcels of all others come from there; they pass through this program's memory, never through its output.

Words of a remote command are quoted one by one, and the targets are checked when the topology is read.  A node that
fails keeps no other from being deployed; who is started again goes on where it was.
"""

import argparse
import functools
import io
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from cumulet.cli import parcel as package
from cumulet.cli.parcel import Found
from cumulet.core import parcels
from cumulet.core import topology as topologies
from cumulet.core.parcels import Parcel
from cumulet.core.topology import Node, Topology

OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-T")
LOOK_SECONDS, WORK_SECONDS = 60.0, 1800.0
SIDE_BY_SIDE = 8


class DeployError(Exception):
    """A command on a node failed; the message names the node, the command and what it said last."""


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: bytes


class Runner(Protocol):
    def run(self, node: Node, words: Sequence[str], stdin: bytes = b"", seconds: float = WORK_SECONDS) -> Done: ...


class Ssh:
    """Commands on nodes, as root.  ``config``: a file for ssh's option -F."""

    def __init__(self, config: Path | None = None) -> None:
        self._options = [*OPTIONS, *(("-F", str(config)) if config else ())]

    def run(self, node: Node, words: Sequence[str], stdin: bytes = b"", seconds: float = WORK_SECONDS) -> Done:
        target = node.ssh or f"root@{node.address}"
        command = ["ssh", *self._options, "--", target, shlex.join(words)]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise DeployError(f"{node.name}: {words[0]} takes longer than {seconds:.0f} s") from error
        return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Plan:
    """What there is to do on a node.  ``parcel`` None: it is not known before the first controller is up."""

    node: Node
    parcel: Parcel | None
    install: bool
    changes: Sequence[str]
    running: bool

    @property
    def words(self) -> str:
        steps = ["install the package"] if self.install else []
        if self.changes:
            steps.append(f"write {', '.join(self.changes)}")
        if not self.running:
            steps.append("start")
        elif steps:
            steps.append("exchange the services")
        return "; ".join(steps) or "nothing to do"

    @property
    def needed(self) -> bool:
        return self.install or bool(self.changes) or not self.running


def main(options: argparse.Namespace) -> int:
    place = PurePosixPath(options.place)
    if not place.is_absolute() or len(place.parts) < 3 or ".." in place.parts:
        sys.exit(f"{options.place} is no directory for a package, as /opt/cumulet is")
    text = options.topology.read_text() if options.topology.exists() else ""
    found = topologies.load(options.topology)
    try:
        return Deployment(found, text, str(place), Ssh(options.ssh_config)).run(options.dry_run)
    except DeployError as error:
        sys.exit(str(error))


class Deployment:
    """One run.  ``place``: where the package is on every node."""

    def __init__(self, found: Topology, text: str, place: str, runner: Runner) -> None:
        self._topology, self._text, self._place, self._runner = found, text, place, runner
        self._version = package.version()
        self._first = topologies.controllers(found)[0]

    @functools.cached_property
    def _archive(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
            for file in package.package_files():
                archive.add(file, str(file.relative_to(package.HOME)))
        return buffer.getvalue()

    def run(self, dry: bool) -> int:
        """0 if every node is as it should be in the end, or could be looked at if this is a dry run."""
        first = self._plan(self._first)
        if not dry:
            self._carry_out(first)
        others = [node for node in self._topology.nodes if node != self._first]
        controllers = [node for node in others if topologies.controls(node)]
        failures = self._bring(controllers, dry, 1) + self._bring(
            [node for node in others if node not in controllers], dry, SIDE_BY_SIDE
        )
        if dry:
            _tell(self._first, first.words)
        for failure in failures:
            print(failure, file=sys.stderr)
        return 1 if failures else 0

    def _bring(self, nodes: Iterable[Node], dry: bool, together: int) -> list[str]:
        """What failed."""

        def one(node: Node) -> str:
            try:
                plan = self._plan(node)
                if dry:
                    _tell(node, plan.words)
                else:
                    self._carry_out(plan)
            except DeployError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(together) as pool:
            return [failure for failure in pool.map(one, nodes) if failure]

    # ── look ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, node: Node) -> Plan:
        parcel = self._parcel(node)
        asked = parcel or parcels.make(self._topology, self._text, node, None)
        done = self._run(
            node, self._cumulet("node", "settle", "--dry-run"), _encoded(asked), LOOK_SECONDS, bad=True
        )
        try:
            found = msgspec.json.decode(done.out, type=Found)
        except msgspec.MsgspecError:
            found = Found("", sorted(asked.files), False)
        new = [] if parcel else [parcels.SECRETS]
        return Plan(node, parcel, found.version != self._version, [*found.changes, *new], found.running)

    def _parcel(self, node: Node) -> Parcel | None:
        """From the first controller, which has the secrets; its own has none, for it keeps what it has."""
        if node == self._first:
            return parcels.make(self._topology, self._text, node, None)
        words = self._cumulet("node", "parcel", node.name)
        done = self._run(self._first, words, self._text.encode(), LOOK_SECONDS, bad=True)
        try:
            return msgspec.json.decode(done.out, type=Parcel)
        except msgspec.MsgspecError:
            return None

    # ── do ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, plan: Plan) -> None:
        node = plan.node
        _tell(node, plan.words)
        if not plan.needed:
            return
        if plan.parcel is None:
            raise DeployError(f"{node.name}: {self._first.name} does not give its parcel")
        if plan.install:
            self._install(node)
        self._run(node, self._cumulet("node", "settle"), _encoded(plan.parcel))
        if plan.running:
            self._run(node, self._cumulet("upgrade", "--yes"))
        self._run(node, self._cumulet("up", "--yes", "--no-server"))
        _tell(node, "done")

    def _install(self, node: Node) -> None:
        """The package's files, in the place of those that were there; then what they need."""
        place = self._place
        self._run(node, ["mkdir", "-p", "--", place])
        self._run(node, ["rm", "-rf", "--", *(f"{place}/{name}" for name in package.SOURCES)])
        self._run(node, ["tar", "-xzf", "-", "--no-same-owner", "-C", place], self._archive)
        several = topologies.controls(node) and len(self._topology.nodes) > 1
        self._run(node, [f"{place}/tools/setup", "cluster" if several else "up", "--yes"])

    def _cumulet(self, *words: str) -> list[str]:
        return [f"{self._place}/cumulet", *words]

    def _run(
        self, node: Node, words: Sequence[str], stdin: bytes = b"", seconds: float = WORK_SECONDS, bad: bool = False
    ) -> Done:
        """DeployError if ssh itself fails, and unless ``bad`` if the command does."""
        done = self._runner.run(node, words, stdin, seconds)
        if done.code == 255 or (done.code and not bad):
            said = done.err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            what = "ssh" if done.code == 255 else " ".join(words[:3])
            raise DeployError(f"{node.name}: {what} failed: {said[-1]}")
        return done


def _encoded(parcel: Parcel) -> bytes:
    return msgspec.json.encode(parcel)


def _tell(node: Node, words: str) -> None:
    print(f"  {node.name:<20}{words}", flush=True)
