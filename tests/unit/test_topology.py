"""``cloud.toml``: what it says of each node, and what may be wrong with it."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.core import config as configuration
from cumulet.core import topology
from cumulet.core.config import Config
from cumulet.core.errors import BadRequest
from cumulet.services import SERVICES, list_services

FOUR = """
[cloud]
region = "north"

[database]
url = "mysql://cumulet:pass@10.0.0.1/cumulet"

[network]
mtu = 1450

[[node]]
name = "controller"
address = "10.0.0.1"
public_address = "192.0.2.1"
roles = ["controller"]

[[node]]
name = "network"
address = "10.0.0.2"
tunnel_address = "10.1.0.2"
external_interface = "eth2"
roles = ["network"]

[[node]]
name = "compute1"
address = "10.0.0.3"
roles = ["compute"]

[[node]]
name = "compute2"
address = "10.0.0.4"
roles = ["compute"]
"""
AGENTS = ["neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent"]


def config_of(text: str, name: str) -> Config:
    found = topology.parse(text)
    return topology.node_config(found, topology.get_node(found, name))


def node(**fields: str | list[str]) -> str:
    return "[[node]]\n" + "".join(
        f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items()
    )


def test_roles_place_the_services_of_the_map() -> None:
    found = topology.parse(FOUR)
    placed = {one.name: [service.name for service in topology.services_of(one)] for one in found.nodes}
    assert placed["controller"] == [service.name for service in SERVICES if not service.agent]
    assert placed["network"] == AGENTS
    assert placed["compute1"] == placed["compute2"] == ["neutron-openvswitch-agent", "nova-compute"]
    assert set().union(*placed.values()) == {service.name for service in SERVICES}


def test_a_node_with_all_roles_runs_every_service() -> None:
    text = node(name="one", address="10.0.0.1", roles=["controller", "network", "compute"])
    config = config_of(text, "one")
    assert config.services == SERVICES
    assert config.node.services == []
    assert config.network.tunnel_address == ""


def test_a_service_placed_by_name_comes_with_those_of_the_roles() -> None:
    text = FOUR + node(name="more", address="10.0.0.9", roles=["compute"], services=["neutron-l3-agent"])
    assert [one.name for one in config_of(text, "more").services] == [AGENTS[0], "neutron-l3-agent", "nova-compute"]


def test_a_controller_has_the_database_and_the_others_do_not() -> None:
    controller = config_of(FOUR, "controller")
    assert controller.database.url == "mysql://cumulet:pass@10.0.0.1/cumulet"
    assert controller.controls
    for name in ("network", "compute1"):
        config = config_of(FOUR, name)
        assert config.database.url == ""
        assert not config.controls
        assert "pass" not in topology.render(config)


def test_everybody_finds_the_controller_and_listens_on_the_management_network() -> None:
    for name, address in (("controller", "10.0.0.1"), ("network", "10.0.0.2"), ("compute2", "10.0.0.4")):
        config = config_of(FOUR, name)
        assert config.controller_urls(8783) == ["https://10.0.0.1:8783"]
        assert config.api.internal_bind == address
        assert config.keystone_url == "https://192.0.2.1:5000/v3"
        assert config.node.region == "north"
        assert config.network.mtu == 1450
    assert config_of(FOUR, "controller").api.bind == "192.0.2.1"


SECURE, PLAIN = "amqps://10.0.0.1:5671", "amqp://10.0.0.1:5672"


@pytest.mark.parametrize(("tls", "url"), [("", SECURE), ("[tls]\non = true", SECURE), ("[tls]\non = false", PLAIN)])
def test_several_nodes_share_a_broker_of_the_first_controllers(tls: str, url: str) -> None:
    for name in ("controller", "network", "compute1"):
        found = config_of(FOUR + tls, name)
        assert found.broker.url == url
        assert found.broker.private is (name == "controller")
        assert found.tls.on is (url == SECURE)
        assert found.scheme == ("https" if url == SECURE else "http")


def test_a_broker_of_somebody_elses_is_not_started_and_one_node_needs_none() -> None:
    given = configuration.Broker("amqp://a:b@broker/")
    for name in ("controller", "compute1"):
        assert config_of(FOUR + '[broker]\nurl = "amqp://a:b@broker/"', name).broker == given
    alone = node(name="one", address="10.0.0.1", roles=["controller", "network", "compute"])
    assert config_of(alone, "one").broker == configuration.Broker()
    assert not config_of(alone, "one").tls.on


def test_tunnels_end_at_the_tunnel_address_or_else_at_the_nodes_own() -> None:
    ends = {name: config_of(FOUR, name).network.tunnel_address for name in ("controller", "network", "compute1")}
    assert ends == {"controller": "", "network": "10.1.0.2", "compute1": "10.0.0.3"}


def test_the_public_network_is_the_routers_nodes() -> None:
    assert config_of(FOUR, "network").network.external_interface == "eth2"
    assert config_of(FOUR, "network").network.public_cidr
    assert config_of(FOUR, "compute1").network.public_cidr == ""


def test_a_controller_of_several_asks_itself_first() -> None:
    text = FOUR + node(name="c2", address="10.0.0.5", roles=["controller"])
    assert config_of(text, "c2").api.controllers == ["10.0.0.5", "10.0.0.1"]
    assert config_of(text, "compute1").api.controllers == ["10.0.0.1", "10.0.0.5"]
    assert config_of(text, "c2").keystone_url == "https://192.0.2.1:5000/v3"


def test_several_controllers_share_the_first_ones_mariadb_unless_there_is_another() -> None:
    two = [node(name=f"c{number}", address=f"10.0.0.{number}", roles=["controller"]) for number in (1, 2)]
    agent = node(name="h1", address="10.0.0.3", roles=["compute"])
    first, second, other = (config_of("".join(two) + agent, name).database for name in ("c1", "c2", "h1"))
    assert first.url == second.url == "mysql+mysqldb://cumulet@10.0.0.1/cumulet"
    assert [first.private, second.private, other.private] == [True, False, False]
    assert other.url == ""
    alone = config_of(two[0] + agent, "c1").database
    assert (alone.url, alone.private) == ("", True)
    own = config_of('[database]\nurl = "mysql://db.example/x"\n' + "".join(two), "c1").database
    assert (own.url, own.private) == ("mysql://db.example/x", False)


def test_addresses_may_be_ipv6() -> None:
    text = node(name="one", address="2001:db8::1", roles=["controller"])
    assert config_of(text, "one").controller_urls(9696) == ["http://[2001:db8::1]:9696"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"there is no \[\[node\]\]"),
        ("[nodes]\n", "unknown field `nodes`"),
        ("[cloud]\nlab = 1\n", r"Expected `bool`, got `int` - at `\$.cloud.lab`"),
        (node(name="a", address="10.0.0.1"), "node a: it has neither roles with services nor services"),
        (node(name="a", roles=["controller"]), "node a: Object missing required field `address`"),
        (node(address="10.0.0.1"), "node 1: Object missing required field `name`"),
        (node(name="a", address="10.0.0.1", role="controller"), "node a: Object contains unknown field `role`"),
        (node(name="a", address="0.0.0.0", roles=["controller"]), "node a: address '0.0.0.0' is no IP address"),
        (node(name="a", address="a.example", roles=["controller"]), "node a: address 'a.example' is no IP address"),
        (node(name="-a", address="10.0.0.1", roles=["controller"]), "node -a: name '-a' is no host name"),
        (node(name="a\n", address="10.0.0.1", roles=["controller"]), "is no host name"),
        (node(name="a", address="10.0.0.1", roles=["boss"]), "node a: no such role: 'boss'; there are controller"),
        (
            node(name="a", address="10.0.0.1", services=["nova"]),
            "node a: no such service: 'nova'; there are keystone",
        ),
        (node(name="a", address="10.0.0.1", roles=["compute"]), "no node has the role controller"),
        (
            node(name="a", address="10.0.0.1", roles=["controller"], external_interface="eth0"),
            "node a: external_interface: nothing uses it",
        ),
        (
            node(name="a", address="10.0.0.1", roles=["controller", "network"], external_interface="../x"),
            "node a: external_interface '../x' is no name of a device",
        ),
        (
            node(name="a", address="10.0.0.1", roles=["controller"], ssh="-oProxyCommand=x"),
            r"node a: ssh '-oProxyCommand=x' is no \[user@\]host",
        ),
        (
            node(name="a", address="10.0.0.1", roles=["controller"])
            + node(name="a", address="10.0.0.2", roles=["compute"]),
            "2 nodes have the name 'a'",
        ),
        (
            node(name="a", address="10.0.0.1", roles=["controller"])
            + node(name="b", address="10.0.0.1", roles=["compute"]),
            "2 nodes have the address '10.0.0.1'",
        ),
        (
            node(name="a", address="10.0.0.1", services=["nova-scheduler"])
            + node(name="b", address="10.0.0.2", roles=["controller"]),
            "node a: keystone, glance-api, neutron-server, nova-api does not run there",
        ),
        (
            "[network]\ntunnel_address = '10.1.0.1'\n" + node(name="a", address="10.0.0.1", roles=["controller"]),
            "network.tunnel_address is a node's own",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        topology.parse(text)


def test_the_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    with pytest.raises(BadRequest, match=r"cloud.toml: No such file"):
        topology.load(file)
    file.write_text("x")
    with pytest.raises(BadRequest, match=str(file)):
        topology.load(file)
    file.write_text(FOUR)
    assert [one.name for one in topology.load(file).nodes] == ["controller", "network", "compute1", "compute2"]
    with pytest.raises(BadRequest, match="no such node: x; there are controller, network"):
        topology.get_node(topology.load(file), "x")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    name=text,
    services=st.lists(st.sampled_from([one.name for one in SERVICES]), unique=True),
    dns=st.lists(text, max_size=3),
    ratio=st.floats(allow_nan=False),
    rounds=st.integers(4, 20),
    web=st.booleans(),
)
def test_what_is_rendered_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    services: list[str],
    dns: list[str],
    ratio: float,
    rounds: int,
    web: bool,
) -> None:
    file = tmp_path_factory.mktemp("etc") / "cumulet.toml"
    config = Config(
        node=configuration.Node(name=name, services=services),
        identity=configuration.Identity(bcrypt_rounds=rounds),
        images=configuration.Images(web_download=web),
        compute=configuration.Compute(cpu_ratio=ratio),
        network=configuration.Network(dns_servers=dns),
        etc_dir=str(file.parent),
    )
    file.write_text(topology.render(config))
    assert configuration.load(file) == config


def test_an_unknown_service_in_a_nodes_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cumulet.toml"
    file.write_text('[node]\nservices = ["nova-api", "nova"]\n')
    with pytest.raises(BadRequest, match=r"no such service in node.services: nova$"):
        configuration.load(file)


def test_the_layer_2_agent_belongs_to_network_and_compute() -> None:
    for role in ("network", "compute"):
        assert "neutron-openvswitch-agent" in [one.name for one in list_services(roles=[role])]
    assert list_services() == ()
