"""``cumulet node`` and ``cumulet run``: the processes themselves, in the foreground."""

import argparse
import sys

from cumulet.cli import child
from cumulet.core import config as configuration
from cumulet.services import BY_NAME


def node(options: argparse.Namespace) -> int:
    from cumulet.cli import node as parent

    names = [name for name in options.services.split(",") if name]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        sys.exit(f"no such service: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return parent.run(configuration.load(options.config), names)


def run(options: argparse.Namespace) -> int:
    from cumulet.cli import node as parent

    service = BY_NAME.get(options.service)
    if service is None:
        sys.exit(f"no such service: {options.service}; there are {', '.join(BY_NAME)}")
    config = configuration.load(options.config)
    api = [parent.listen(*child.api_address(service, config))] if service.port else []
    child.run_service(service, config, parent.listen_status(config, service.name), api)
    return 0
