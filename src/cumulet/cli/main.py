"""The command ``cumulet``.  Each subcommand's module is imported only when it is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cumulet.core.errors import ApiError, Retry

Command = Callable[[str, str, str], argparse.ArgumentParser]
EPILOG = "Configuration: /etc/cumulet/cumulet.toml, or --config FILE before the command."
LAB = "a cloud of several nodes on this machine, each node of namespaces, to look at and to break"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    options = _parser().parse_args(argv)
    if os.geteuid() == 0:
        os.environ["PATH"] = os.pathsep.join(_path())
    module, _, function = options.run.partition(":")
    try:
        return int(getattr(importlib.import_module(f"cumulet.cli.{module}"), function)(options) or 0)
    except (ApiError, Retry) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted" + options.interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _path() -> list[str]:
    """The caller's, and where administrators' programs are: su without a dash leaves those out."""
    found = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return found + [place for place in ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin") if place not in found]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cumulet", description="An OpenStack cloud in one package.", epilog=EPILOG)
    parser.add_argument("--config", type=Path, default=Path("/etc/cumulet/cumulet.toml"), help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: str, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(run=run, interrupted="")
        return found

    for add in (_cloud, _sight, _processes, _nodes, _checkout, _lab):
        add(command)
    return parser


def _cloud(command: Command) -> None:
    """Starting, ending and using the cloud."""
    up = command("up", "up:main", "install what is missing, start the cloud, boot a first server")
    up.set_defaults(interrupted="; 'cumulet up' goes on from here")
    up.add_argument("--yes", "-y", action="store_true", help="do not ask")
    up.add_argument("--no-server", action="store_true", help="without the first server")
    down = command("down", "down:main", "stop everything; the data stays")
    down.add_argument("--now", action="store_true", help="switch guests off instead of shutting them down")
    purge = command("purge", "down:purge", "stop everything and remove the data, after asking")
    purge.add_argument("--yes", "-y", action="store_true", help="do not ask")
    upgrade = command(
        "upgrade", "upgrade:main", "exchange this node's services for those of the package as it is now"
    )
    upgrade.add_argument("--yes", "-y", action="store_true", help="install what is missing without asking")
    launch = command("launch", "launch:main", "make a server with key, floating IP and ssh allowed, and wait")
    launch.add_argument("name")
    launch.add_argument("--image", default="cirros")
    launch.add_argument("--flavor", default="m1.tiny")
    launch.add_argument("--network", default="private")
    ssh = command("ssh", "launch:ssh", "log in to a server by its floating IP")
    ssh.add_argument("name")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of a shell")


def _sight(command: Command) -> None:
    """Looking at it."""
    where = command("where", "where:main", "what runs where, and whether it is healthy")
    where.add_argument("--json", action="store_true")
    where.add_argument("--svg", action="store_true", help="a picture, on standard output")
    why = command("why", "why:main", "what is wanted of a thing, what is seen, what it waits for and since when")
    why.add_argument("thing", help="name or id of a server, port, network, router, or a floating IP's address")
    why.add_argument("--json", action="store_true")
    logs = command("logs", "logs:main", "a service's log, readable")
    logs.add_argument("service", nargs="?", help="default: all")
    logs.add_argument("--follow", "-f", action="store_true")
    logs.add_argument("--lines", "-n", type=int, default=40)
    loops = command(
        "loops", "loops:main", "each reconcile loop on each node: last pass, what fails, how often, why"
    )
    loops.add_argument("--json", action="store_true")
    trace = command("trace", "trace:main", "what every service did for a request, as one timeline")
    trace.add_argument("request", metavar="REQUEST-ID", help="of an answer's X-Openstack-Request-Id")
    trace.add_argument("--json", action="store_true")
    trace.add_argument("--wait", type=float, metavar="SECONDS", help="for other nodes; default: until they are due")
    events = command("events", "events:main", "what has happened in the cloud")
    events.add_argument("--follow", "-f", action="store_true")
    events.add_argument("--lines", "-n", type=int, default=40)
    events.add_argument("--type", default="", help="only those whose type contains this, e.g. instance.create")
    events.add_argument("--json", action="store_true", help="an object a line")
    audit = command("audit", "audit:main", "who changed what of a thing, or what it was at a time")
    audit.add_argument("thing", help="id or name of anything that the APIs make")
    audit.add_argument("--at", default="", metavar="TIME", help="e.g. 2026-11-22T14:08:36")
    audit.add_argument("--json", action="store_true")
    doctor = command("doctor", "doctor:main", "check the machine and the cloud, with a remedy for each finding")
    doctor.add_argument("--json", action="store_true")


def _processes(command: Command) -> None:
    """What starts the rest."""
    node = command("node", "nodes:node", "run this node's services, in the foreground")
    node.add_argument("--services", default="", help="names, separated by commas; default: all")
    _membership(node)
    run = command("run", "nodes:run", "run one service alone, in the foreground")
    run.add_argument("service")


def _membership(node: argparse.ArgumentParser) -> None:
    """What is done about a node as a whole."""
    actions = node.add_subparsers(metavar="ACTION")

    def action(name: str, run: str, text: str) -> argparse.ArgumentParser:
        found = actions.add_parser(name, help=text, description=text)
        found.set_defaults(run=f"membership:{run}")
        return found

    token = action("token", "token", "on a controller: a token with which a node of cloud.toml may join, once")
    token.add_argument("name")
    token.add_argument("--minutes", type=int, default=60, help="how long it is good")
    join = action("join", "join", "on the new node: get its configuration and secrets from a controller, and start")
    join.add_argument("url", help="of nova-conductor on a controller, e.g. http://10.0.0.1:8783")
    join.add_argument("token")
    join.add_argument("--yes", "-y", action="store_true", help="install what is missing without asking")
    drain = action("drain", "drain", "on a controller: nothing new goes to a node, and what it has goes to others")
    drain.add_argument("name")
    drain.add_argument("--cold", action="store_true", help="shut down servers that cannot be moved as they run")
    remove = action("remove", "remove", "on a controller: forget a node that is empty and off")
    remove.add_argument("name")
    settle = action("settle", "settle", "put the files on standard input in place; 'cumulet deploy' calls it")
    settle.add_argument("--dry-run", action="store_true", help="only tell what differs")
    parcel = action("parcel", "give", "a node's files, on standard output; 'cumulet deploy' calls it")
    parcel.add_argument("name")


def _nodes(command: Command) -> None:
    """Several nodes."""
    deploy = command("deploy", "deploy:main", "bring the nodes of a topology to what it says, over ssh")
    deploy.add_argument("topology", type=Path, metavar="cloud.toml")
    deploy.add_argument("--dry-run", action="store_true", help="only tell what there is to do")
    deploy.add_argument("--place", default="/opt/cumulet", help="where the package is on the nodes")
    deploy.add_argument("--ssh-config", type=Path, metavar="FILE", help="for ssh's option -F")


def _checkout(command: Command) -> None:
    """For who works on it."""
    test = command("test", "testing:test", "run every ring of tests that this machine can run")
    test.add_argument("--yes", "-y", action="store_true", help="install without asking")
    test.add_argument(
        "--tempest", nargs="?", const="", metavar="PATTERN", help="instead: OpenStack's own tests; default: smoke"
    )
    test.add_argument("--chaos", action="store_true", help="instead: long campaigns on labs that are broken")
    test.add_argument("words", nargs=argparse.REMAINDER, metavar="-- PYTEST", help="words for pytest")
    check = command("check", "testing:check", "format, lint, types, import contracts")
    check.add_argument("--yes", "-y", action="store_true", help="install without asking")
    check.add_argument("--fix", action="store_true", help="format and repair what can be repaired")
    chaos = command("chaos", "chaos:main", "break a lab at random, see that nothing is stuck, leaked or lost")
    chaos.add_argument("--sim", action="store_true", help="instead: a simulated cloud of its own")
    chaos.add_argument("--name", default="lab", help="the lab's name; default: lab")
    chaos.add_argument("--rounds", type=int, help="default: 50; of a simulated cloud 1000")
    chaos.add_argument("--seed", type=int, help="0 to 4294967295: the same one gives the same campaign")
    chaos.add_argument("--json", action="store_true")
    sim = command("sim", "simulate:main", "a real controller with many simulated hosts and servers, in namespaces")
    sim.add_argument("--hosts", type=int, default=100)
    sim.add_argument("--servers", type=int, default=1000)
    sim.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="how long to watch it do nothing")
    sim.add_argument("--once", action="store_true", help="end when it has been measured; default: run on")
    sim.add_argument("--json", action="store_true", help="only the figures")
    bench = command("bench", "bench:main", "measure clouds of its own, each figure beside its target")
    bench.add_argument("--yes", "-y", action="store_true", help="install without asking")
    bench.add_argument("--json", action="store_true", help="a list of objects")
    bench.add_argument("--write", action="store_true", help="also write docs/benchmarks.md; measures everything")
    bench.add_argument("names", nargs="*", metavar="NAME", help="figures; default: all")


def _lab(command: Command) -> None:
    verbs = command("lab", "", LAB).add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: str, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text, description=text)
        found.set_defaults(run=f"lab:{run}", interrupted="")
        found.add_argument("--name", default="lab", help="the lab's name; default: lab")
        return found

    up = verb("up", "start", "make the lab, or what is missing of it, and wait until its cloud works")
    up.add_argument("--file", type=Path, help="a topology; default: controller, network, compute1, compute2")
    up.add_argument("--yes", "-y", action="store_true", help="do not ask before packages are installed")
    verb("down", "stop", "end the lab; nothing is left of it")
    execute = verb("exec", "execute", "run a command on a node, or on the machine outside of the cloud")
    execute.add_argument("node", help="a node's name, or outside")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="default: a shell")
    for name, text in (("kill", "cut a node's power"), ("boot", "start a node that is off, with its disks")):
        verb(name, name, text).add_argument("node")
    cut = verb("cut", "cut", "cut a node off the management network")
    cut.add_argument("node")
    cut.add_argument(
        "seconds", nargs="?", type=float, help="mend it after this time; 0: now; default: leave it cut"
    )


if __name__ == "__main__":
    sys.exit(main())
