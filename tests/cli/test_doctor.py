"""Findings come with remedies; a check that cannot look is a finding, not a traceback."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.cli import doctor, sockets
from cumulet.cli.doctor import Finding
from cumulet.core import clock
from cumulet.core.config import Api, Config, Node
from cumulet.core.errors import Retry
from cumulet.core.reconcile import KeyStatus


@pytest.mark.parametrize(
    ("kind", "age", "level"),
    [
        ("waiting", 10, "remark"),
        ("waiting", 1000, "wrong"),
        ("failed", 10, "wrong"),
        ("terminal", 1000, "remark"),
    ],
)
def test_what_only_waits_is_wrong_after_a_while(kind: str, age: float, level: str) -> None:
    assert doctor._level(KeyStatus("", kind, 1, clock.later(-age), None)) == level


def test_a_check_that_cannot_look_says_so() -> None:
    def _domains(config: Config) -> Iterator[Finding]:
        yield Finding("ok", "domains", "fine so far")
        raise Retry("libvirtd does not answer")

    (found,) = doctor._carry_out(_domains, Config())
    assert (found.level, found.about) == ("wrong", "domains")
    assert "libvirtd does not answer" in found.found
    assert found.remedy


def test_a_port_that_somebody_has_is_named_with_its_holder() -> None:
    config = Config(api=Api(bind="127.77.0.1", internal_bind="127.77.0.1"))
    with socket.create_server(("127.77.0.1", 9696)):
        (taken,) = sockets.taken_ports(config)
    assert taken.startswith("neutron-server needs port 9696 on 127.77.0.1: Address already in use by ")
    assert "(pid " in taken
    assert sockets.taken_ports(config) == []


def test_disks_are_looked_at_where_data_grows(tmp_path: Path) -> None:
    config = Config(node=Node(state_dir=str(tmp_path / "none" / "yet"), log_dir=str(tmp_path)))
    (found,) = doctor._disk(config)
    assert found.about == "disk"


def test_a_node_is_asked_for_what_it_has_only() -> None:
    def checks(*services: str) -> set[str]:
        every = (doctor._virtualization, doctor._datapath, doctor._orphans, doctor._domains, doctor._switch)
        config = Config(node=Node(services=list(services)))
        return {check.__name__ for check in every if doctor._applies(check, config)}

    assert checks() == {"_virtualization", "_datapath", "_orphans", "_domains", "_switch"}
    assert checks("keystone") == {"_orphans"}
    assert checks("nova-compute", "neutron-openvswitch-agent") == {"_virtualization", "_datapath"}
