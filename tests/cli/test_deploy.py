"""``deploy`` against nodes that are directories: what is planned, what is done, and what is left alone."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from cumulet.cli import parcel as package
from cumulet.cli.deploy import DeployError, Deployment, Done
from cumulet.core import parcels, secrets, topology
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.parcels import Parcel
from cumulet.core.topology import Node

TOPOLOGY = """
[database]
url = "mysql://cumulet:private@10.0.0.1/cumulet"

[[node]]
name = "c1"
address = "10.0.0.1"
roles = ["controller"]

[[node]]
name = "c2"
address = "10.0.0.4"
roles = ["controller"]

[[node]]
name = "h1"
address = "10.0.0.3"
roles = ["compute"]
"""


class Nodes:
    """Each node is a directory; what a command of ours would do there is done in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.versions: dict[str, str] = {}
        self.running: set[str] = set()
        self.dead: set[str] = set()
        self.said: list[tuple[str, str]] = []
        self.archives: dict[str, list[str]] = {}

    def etc(self, name: str) -> Path:
        return self.place / name

    def run(self, node: Node, words: Sequence[str], stdin: bytes = b"", seconds: float = 0.0) -> Done:
        if node.name in self.dead:
            return Done(255, b"", b"ssh: connect to host 10.0.0.3 port 22: No route to host\n")
        program, *rest = words
        self.said.append((node.name, " ".join([program.removeprefix("/opt/cumulet/"), *rest])))
        if program == "tar":
            with tarfile.open(fileobj=io.BytesIO(stdin)) as archive:
                self.archives[node.name] = archive.getnames()
        elif program.endswith("/tools/setup"):
            self.versions[node.name] = package.version()
        elif program.endswith("/cumulet"):
            return self._cumulet(node.name, rest, stdin)
        return Done(0, b"", b"")

    def _cumulet(self, name: str, words: Sequence[str], stdin: bytes) -> Done:
        if name not in self.versions:
            return Done(127, b"", b"sh: 1: /opt/cumulet/cumulet: not found\n")
        if words[:2] == ["node", "parcel"]:
            found = topology.parse(stdin)
            try:
                made = parcels.make(found, stdin.decode(), topology.get_node(found, words[2]), self.etc(name))
            except NotFound as error:
                return Done(1, b"", error.message.encode())
            return Done(0, msgspec.json.encode(made), b"")
        if words[0] in ("up", "upgrade"):
            self.running.add(name)
            return Done(0, b"", b"")
        given = msgspec.json.decode(stdin, type=Parcel)
        if "--dry-run" in words:
            known = package.Found(self.versions[name], package.look(given, self.etc(name)), name in self.running)
            return Done(0, msgspec.json.encode(known), b"")
        package.settle(given, self.etc(name) / "cumulet.toml")
        return Done(0, b"", b"")

    def commands(self, name: str) -> list[str]:
        """What changed something, in order."""
        return [
            words for host, words in self.said if host == name and "dry-run" not in words and "parcel" not in words
        ]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def deploy(nodes: Nodes, text: str = TOPOLOGY, dry: bool = False) -> int:
    nodes.said.clear()
    return Deployment(topology.parse(text), text, "/opt/cumulet", nodes).run(dry)


def test_a_dry_run_tells_all_and_changes_nothing(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(nodes, dry=True) == 0
    told = capsys.readouterr().out
    assert "c1                  install the package; write cloud.toml, cumulet.toml; start" in told
    assert "h1                  install the package; write cumulet.toml, secrets.json; start" in told
    assert [nodes.commands(name) for name in ("c1", "c2", "h1")] == [[], [], []]
    assert list(nodes.place.iterdir()) == []


def test_every_node_gets_package_files_and_a_start(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(nodes) == 0
    assert nodes.running == {"c1", "c2", "h1"}
    assert [words.split()[0] for words in nodes.commands("h1")] == [
        "mkdir", "rm", "tar", "tools/setup", "cumulet", "cumulet",
    ]  # fmt: skip
    assert "tools/setup cluster --yes" in nodes.commands("c1")
    assert "tools/setup up --yes" in nodes.commands("h1")
    assert {"cumulet", "pyproject.toml", "src/cumulet/services.py", "tools/setup"} <= set(nodes.archives["h1"])
    assert not [name for name in nodes.archives["h1"] if "__pycache__" in name or name.startswith("tests")]
    cloud = secrets.load(nodes.etc("c1"))
    assert secrets.load(nodes.etc("c2")) == cloud
    own = secrets.load_host(nodes.etc("h1"), "h1")
    assert own == secrets.host_secrets(cloud, "h1", metadata=False)
    assert not (nodes.etc("h1") / "cloud.toml").exists()
    told = "".join(capsys.readouterr())
    assert not [secret for secret in msgspec.structs.astuple(cloud) if secret in told]
    assert own.host_token not in told


def test_the_first_controller_is_first_and_the_other_is_before_the_agents(nodes: Nodes) -> None:
    deploy(nodes)
    started = [name for name, words in nodes.said if words.startswith("cumulet up")]
    assert started == ["c1", "c2", "h1"]


def test_what_is_right_is_not_touched(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(nodes)
    capsys.readouterr()
    assert deploy(nodes) == 0
    assert [nodes.commands(name) for name in ("c1", "c2", "h1")] == [[], [], []]
    assert capsys.readouterr().out.count("nothing to do") == 3


def test_a_change_reaches_the_nodes_that_it_is_of(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(nodes)
    capsys.readouterr()
    text = TOPOLOGY.replace('roles = ["compute"]', 'roles = ["compute"]\ntunnel_address = "10.1.0.3"')
    more = text + '[[node]]\nname = "n1"\naddress = "10.0.0.5"\nroles = ["network"]\n'
    deploy(nodes, more, dry=True)
    told = capsys.readouterr().out
    assert "c1                  write cloud.toml; exchange the services" in told
    assert "h1                  write cumulet.toml; exchange the services" in told
    assert "n1                  install the package; write cumulet.toml, secrets.json; start" in told
    deploy(nodes, more)
    assert nodes.commands("h1") == ["cumulet node settle", "cumulet upgrade --yes", "cumulet up --yes --no-server"]


def test_another_version_is_installed(nodes: Nodes) -> None:
    deploy(nodes)
    nodes.versions["h1"] = "older"
    deploy(nodes)
    assert "tar -xzf - --no-same-owner -C /opt/cumulet" in nodes.commands("h1")
    assert nodes.commands("c1") == []


def test_a_node_that_is_not_there_keeps_no_other(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    nodes.dead.add("c2")
    assert deploy(nodes) == 1
    assert nodes.running == {"c1", "h1"}
    assert "c2: ssh failed: ssh: connect to host 10.0.0.3 port 22: No route to host" in capsys.readouterr().err
    nodes.dead = {"c1"}
    with pytest.raises(DeployError, match="c1: ssh failed"):
        deploy(nodes)


def test_files_are_private_where_they_hold_secrets(nodes: Nodes) -> None:
    deploy(nodes)
    modes = {
        (name, file): (nodes.etc(name) / file).stat().st_mode & 0o777
        for name, file in (
            ("c1", "cumulet.toml"),
            ("c1", "cloud.toml"),
            ("h1", "cumulet.toml"),
            ("h1", "secrets.json"),
        )
    }
    assert list(modes.values()) == [0o640, 0o640, 0o644, 0o600]


@pytest.mark.parametrize("name", ["../x", "policy.d/nova.yaml", "credential-keys/x", "credential-keys/../x", ""])
def test_a_parcel_writes_only_what_parcels_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="a parcel does not have"):
        package.settle(Parcel("h1", {name: "x"}), tmp_path / "etc" / "cumulet.toml")
    assert list(tmp_path.iterdir()) == []
