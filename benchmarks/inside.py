"""What runs in the machine: prepares a cloud, measures one group, prints one JSON line per figure.

python -m benchmarks.inside GROUP NAME...
"""

import subprocess
import sys

import msgspec

from benchmarks import cloud, node, simulated
from cumulet.cli import prepare
from cumulet.core import config as configuration

GROUPS = {"cloud": cloud.measure, "simulated": simulated.measure}


def main(group: str, names: list[str]) -> None:
    config = configuration.load()
    if group == "cloud":
        subprocess.run([*node.CUMULET, "up", "--yes", "--no-server"], stdout=sys.stderr, check=True)
        node.end()
    else:
        prepare.directories(config)
    try:
        for one in GROUPS[group](frozenset(names), config):
            print(msgspec.json.encode(one).decode(), flush=True)
    finally:
        subprocess.run([*node.CUMULET, "down", "--now"], stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
