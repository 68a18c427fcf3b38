"""``cumulet node`` and ``cumulet run``: the processes themselves, in the foreground."""

import argparse
import os
import sys

from cumulet.cli import child, status
from cumulet.core import config as configuration
from cumulet.core import secrets
from cumulet.services import BY_NAME


def node(options: argparse.Namespace) -> int:
    from cumulet.cli import node as parent

    if os.geteuid() != 0:
        sys.exit("cumulet node needs root: its agents make bridges, namespaces and virtual machines")
    names = [name for name in options.services.split(",") if name]
    config = configuration.load(options.config)
    here = [service.name for service in config.services]
    unknown = [name for name in names if name not in here]
    if unknown:
        sys.exit(f"no such service on this node: {', '.join(unknown)}; there are {', '.join(here)}")
    return parent.run(config, names)


def run(options: argparse.Namespace) -> int:
    from cumulet.cli import prepare, sockets

    service = BY_NAME.get(options.service)
    if service is None:
        sys.exit(f"no such service: {options.service}; there are {', '.join(BY_NAME)}")
    config = configuration.load(options.config)
    if os.geteuid() != 0:
        sys.exit("cumulet run needs root: a service takes the user that it needs by itself")
    if status.ask(config, service.name, "/healthcheck")[0]:
        sys.exit(f"{service.name} runs on this node already")
    if not secrets.path(config.etc).exists():
        sys.exit(f"there is no cloud here yet ({config.etc}/secrets.json is missing): 'cumulet up' makes one")
    os.umask(0o022)
    prepare.directories(config)
    api = [sockets.listen(*sockets.api_address(service, config))] if service.port else []
    child.run_service(service, config, sockets.listen_status(config, service.name), api)
    return 0
