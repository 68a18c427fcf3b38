"""A server goes to another node as it runs, and back; one that is broken off in the middle is where it was."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import made
from tests.lab.rig import LabRig, Servers
from tests.machine import wait_for

pytestmark = pytest.mark.host
NODE = '[[node]]\nname = "{0}"\nroles = ["{1}"]\naddress = "10.10.0.{2}"\ntunnel_address = "10.20.0.{2}"\n'
SLOW = """[cloud]
lab = true
[compute]
live_migration_mib = 2
""" + "\n".join(
    (
        '[[node]]\nname = "controller"\nroles = ["controller"]\naddress = "10.10.0.11"\n',
        NODE.format("network", "network", 21) + 'external_interface = "ext0"\n',
        NODE.format("compute1", "compute", 31),
        NODE.format("compute2", "compute", 32),
    )
)
LIVE = ("--os-compute-api-version", "2.30", "server", "migrate", "--live-migration", "--host")


def status(lab: LabRig, name: str) -> tuple[str, str]:
    """Status and host."""
    shown = lab.ask("server", "show", name)
    return shown["status"], shown["OS-EXT-SRV-ATTR:host"]


def server_id(lab: LabRig, name: str) -> str:
    return str(lab.ask("server", "show", name)["id"])


def traces(lab: LabRig, node: str, server: str) -> list[str]:
    """What a node has of a server."""
    port = lab.ask("port", "list", "--server", server)[0]["ID"]
    return [line for line in lab.left(node) if server in line or line == f"tap{port[:11]}"]


def arrived(lab: LabRig, name: str, there: str) -> None:
    """AssertionError with all that the cloud knows of it, if it does not come."""
    try:
        wait_for(lambda: status(lab, name) == ("ACTIVE", there), 120, f"{name} on {there}")
    except AssertionError as error:
        words = ("--os-compute-api-version", "2.51", "server", "event", "list", "--long", name)
        told = [lab.openstack(*words), outcome(lab, server_id(lab, name))]
        told += [lab.run("controller", "cumulet", verb, check=False) for verb in ("loops", "where")]
        told.append(lab.run("controller", "cumulet", "why", name, check=False))
        raise AssertionError("\n".join(told)) from error


def outcome(lab: LabRig, server: str) -> str:
    """What became of its latest migration."""
    words = ("--os-compute-api-version", "2.59", "server", "migration", "list", "--server", server)
    return str(max(lab.ask(*words), key=lambda one: int(one["Id"]))["Status"])


def test_a_server_goes_there_and_back_as_it_runs(lab: LabRig, servers: Servers) -> None:
    one, two = servers["one"], servers["two"]
    server = server_id(lab, "one")
    lab.ssh("one", "echo it-was-here > kept; sync")
    boot = lab.ssh("one", "cat", "/proc/sys/kernel/random/boot_id")
    (space,) = [name for name in lab.run("network", "ip", "netns").split() if name.startswith("qdhcp-")]
    for here, there in ((one["host"], two["host"]), (two["host"], one["host"])):
        begun = time.monotonic()
        with (
            lab.lost("outside", one["floating"]) as from_outside,
            lab.lost("network", one["private"], "nsenter", f"--net=/run/netns/{space}") as from_inside,
        ):
            lab.openstack(*LIVE, there, "one")
            arrived(lab, "one", there)
            seconds = time.monotonic() - begun
            wait_for(lambda here=here: traces(lab, here, server) == [], 60, f"nothing left on {here}")  # type: ignore[misc]
        assert lab.ssh("one", "cat", "/proc/sys/kernel/random/boot_id") == boot
        assert lab.ssh("one", "cat", "kept").strip() == "it-was-here"
        assert "1 packets received" in lab.ssh("two", "ping", "-c1", "-W2", one["private"])
        assert outcome(lab, server) == "completed"
        print(f"\nlive migration: {seconds:.1f} s; lost of 10 pings a second: {from_outside}, {from_inside}")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabRig]:
    file: Path = tmp_path_factory.mktemp("lab") / "cloud.toml"
    file.write_text(SLOW)
    with made("--file", str(file)) as rig:
        rig.launch("one")
        yield rig


VICTIMS = [(end, name) for name in ("nova-compute", "libvirtd", "qemu") for end in ("source", "destination")]


@pytest.mark.chaos
@pytest.mark.parametrize(("end", "victim"), VICTIMS)
def test_who_dies_in_the_middle_neither_doubles_nor_loses_the_server(slow: LabRig, end: str, victim: str) -> None:
    server, (_, here) = server_id(slow, "one"), status(slow, "one")
    there = {"compute1": "compute2", "compute2": "compute1"}[here]
    boot = slow.ssh("one", "cat", "/proc/sys/kernel/random/boot_id")
    slow.openstack(*LIVE, there, "one")
    wait_for(lambda: sending(slow, server), 60, "the guest on its way")
    node = {"source": here, "destination": there}[end]
    if victim == "qemu":
        slow.run(node, "kill", "-9", *slow.guests(node))
    else:
        slow.kill(node, victim)
    wait_for(lambda: outcome(slow, server) in ("completed", "error", "failed"), 180, "the end of the migration")
    wait_for(lambda: status(slow, "one")[0] == "ACTIVE", 120, "the server")
    at = status(slow, "one")[1]
    (other,) = {here, there} - {at}
    wait_for(lambda: slow.left(other) == [] and len(slow.guests(at)) == 1, 60, "one guest, and nothing elsewhere")
    wait_for(lambda: slow.ssh("one", "hostname", check=False).strip() == "one", 120, "login")
    if (end, victim) != ("source", "qemu"):  # that one has died, and is started again from its disk
        assert slow.ssh("one", "cat", "/proc/sys/kernel/random/boot_id") == boot
    print(f"\n{victim} of the {end}: {outcome(slow, server)}, on the {'source' if at == here else 'destination'}")


def sending(lab: LabRig, server: str) -> bool:
    """Some of its memory is there."""
    words = ("--os-compute-api-version", "2.30", "server", "migration", "list", "--server", server)
    found = json.loads(lab.run("controller", "openstack", *words, "-f", "json", check=False) or "[]")
    shown = max(found, key=lambda one: int(one["Id"]), default={"Status": ""})
    return shown["Status"] == "running" and all(lab.guests(node) for node in ("compute1", "compute2"))
