"""The map of several nodes: what is placed where against what tells of itself, and what is marked."""

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from cumulet.cli import cloud_map, map_picture, node_map
from cumulet.cli.node_map import Line, NodeMap
from cumulet.core import clock, heartbeat, topology
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.db import Database
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.reconcile import KeyStatus, LoopStatus
from cumulet.core.tables import agents
from cumulet.core.topology import Topology
from tests import databases

TOPOLOGY = """
[database]
url = "sqlite:///{place}/cumulet.sqlite"

[tls]
on = false

[[node]]
name = "c1"
address = "127.77.0.1"
roles = ["controller"]

[[node]]
name = "c2"
address = "127.77.0.2"
services = ["nova-api", "nova-scheduler"]

[[node]]
name = "h1"
address = "127.77.0.3"
roles = ["compute"]
"""


class Cloud:
    """The view from c1, where nothing runs; what others tell is written here."""

    def __init__(self, place: Path) -> None:
        self.topology: Topology = topology.parse(TOPOLOGY.format(place=place))
        self.config: Config = topology.node_config(self.topology, topology.get_node(self.topology, "c1"))
        for name in ("state_dir", "run_dir", "log_dir"):
            setattr(self.config.node, name, str(place))
        self.config.etc_dir = str(place)
        self.db = Database(self.config.database_url, LocalBus())
        databases.make_tables(self.db.engine)

    def tell(self, host: str, binary: str, age: float = 0.0, loops: Sequence[LoopStatus] = ()) -> None:
        with self.db.transaction() as tx:
            heartbeat.beat(tx, binary, host, Heartbeat(clock.now(), {}, list(loops)))
            found = agents.c.id == heartbeat.agent_id(binary, host)
            tx.write(sa.update(agents).where(found).values(seen_at=clock.later(-age)))

    def look(self) -> dict[str, NodeMap]:
        return {node.name: node for node in cloud_map.look(self.config, self.topology)}

    def line(self, host: str, service: str) -> Line:
        return next(line for line in self.look()[host].services if line.name == service)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_every_placed_service_is_there_in_the_order_of_the_topology(cloud: Cloud) -> None:
    found = cloud.look()
    assert list(found) == ["c1", "c2", "h1"]
    assert [line.name for line in found["h1"].services] == ["neutron-openvswitch-agent", "nova-compute"]
    assert found["h1"].services[1].about == "has never told of itself"
    assert {line.state for node in found.values() for line in node.services} == {"missing"}


def test_who_gives_signs_of_life_is_up_and_who_gives_none_is_missing(cloud: Cloud) -> None:
    cloud.tell("h1", "nova-compute")
    cloud.tell("c2", "nova-scheduler", age=60.0)
    assert cloud.line("h1", "nova-compute").state == "up"
    gone = cloud.line("c2", "nova-scheduler")
    assert gone.state == "missing"
    assert gone.about.startswith("no sign of life since ")


def test_whose_keys_fail_is_sick_and_who_waits_is_not(cloud: Cloud) -> None:
    failed = KeyStatus("no /dev/kvm", "failed", 2, clock.now(), 1.0)
    waiting = KeyStatus("no tap yet", "waiting", 2, clock.now(), 1.0)
    cloud.tell("h1", "nova-compute", loops=[LoopStatus("servers", clock.now(), 1, "", {"s1": failed})])
    cloud.tell("h1", "neutron-openvswitch-agent", loops=[LoopStatus("ports", clock.now(), 1, "", {"p1": waiting})])
    assert cloud.line("h1", "nova-compute") == Line("nova-compute", "compute", "sick", "servers: s1: no /dev/kvm")
    assert cloud.line("h1", "neutron-openvswitch-agent").state == "up"


def test_a_disabled_one_is_up_and_says_so(cloud: Cloud) -> None:
    cloud.tell("h1", "nova-compute")
    with cloud.db.transaction() as tx:
        tx.write(sa.update(agents).values(enabled=False, disabled_reason="new disks"))
    assert cloud.line("h1", "nova-compute").about == "disabled: new disks"


def test_what_is_not_placed_there_is_extra(cloud: Cloud) -> None:
    cloud.tell("h1", "neutron-l3-agent")
    cloud.tell("old", "nova-compute", age=7000.0)
    assert cloud.line("h1", "neutron-l3-agent").state == "extra"
    assert cloud.line("old", "nova-compute").about.startswith("cloud.toml has no such node; no sign of life since")


def test_an_api_elsewhere_is_asked(cloud: Cloud, api: dict[str, int]) -> None:
    assert cloud.line("c2", "nova-api") == Line("nova-api", "controller", "up", "127.77.0.2:8774")
    api["code"] = 503
    assert cloud.line("c2", "nova-api").state == "sick"


@pytest.fixture
def api() -> Iterator[dict[str, int]]:
    """A nova-api on c2 that answers with this code."""
    answer = {"code": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["code"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.77.0.2", 8774), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield answer
        server.shutdown()


def test_the_text_marks_what_is_wrong(cloud: Cloud) -> None:
    cloud.tell("h1", "nova-compute")
    text = node_map.table(cloud.look().values())
    assert "node h1  compute  127.77.0.3\n" in text
    assert "    nova-compute                up\n" in text + "\n"
    assert "    neutron-openvswitch-agent   MISSING  has never told of itself" in text


@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_picture_shows_every_service_once(count: int) -> None:
    lines = [Line("nova-compute", "compute", "up"), Line("x", "", "extra", "<b> & " + "long " * 20)]
    nodes = [NodeMap(f"n{number}", "10.0.0.1", ["compute"], lines) for number in range(count)]
    picture = ElementTree.fromstring(map_picture.draw(nodes))
    words = [one.text or "" for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("nova-compute") == count
    assert len([word for word in words if word.startswith("extra: <b> & long")]) == count
    boxes = list(picture.iter("{http://www.w3.org/2000/svg}rect"))
    assert len([one for one in boxes if one.get("class") == "box wrong"]) == count
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    assert all(float(one.get("x", "0")) + float(one.attrib["width"]) <= width for one in boxes)
    assert all(float(one.get("y", "0")) + float(one.attrib["height"]) <= height for one in boxes)
