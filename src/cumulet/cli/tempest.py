"""``cumulet test --tempest [PATTERN]``: OpenStack's own test suite against a cloud of its own.

``run`` starts ``inside`` on a machine of its own (``tests/isolated``); ``inside`` starts the cloud there, writes
the ``tempest.conf`` that fits it, runs what the pattern names and tells the outcome.  What the cloud offers is
asked of the cloud, never listed here: actions by naming each for a server that there is not, extensions and
versions from their documents.  So a feature that is added is tested at once, and none is claimed that is missing.
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cumulet.cli import elsewhere
from cumulet.cli.cloud import Cloud, Refused
from cumulet.core import config as configuration
from cumulet.core import secrets
from cumulet.core.config import Config

HOME = Path(__file__).parents[3]
BIN = HOME / ".venv-tempest" / "bin"
WORKSPACE = HOME / "build" / "tempest"
SMOKE = r"^tempest\.api\.(identity|image|network|compute)\..*[\[,]smoke[\],]"
CONCURRENCY = 2
NOBODY = "00000000-0000-0000-0000-000000000000"
SERVICES = {
    "cinder": "block-storage", "glance": "image", "neutron": "network", "nova": "compute", "swift": "object-store",
}  # fmt: skip
COMPUTE_ACTIONS: dict[str, dict[str, Any]] = {
    "cold_migration": {"migrate": None},
    "console_output": {"os-getConsoleOutput": {}},
    "pause": {"pause": None},
    "rescue": {"rescue": {}},
    "resize": {"resize": {"flavorRef": "1"}},
    "shelve": {"shelve": None},
    "snapshot": {"createImage": {"name": "x"}},
    "suspend": {"suspend": None},
}
LIVE_MIGRATION = (
    "live_migration",
    "live_migrate_paused_instances",
    "live_migrate_back_and_forth",
    "block_migration_for_live_migration",
)
"""Features that want a second host."""
TELL = """
import json, subunit, sys, testtools
def tell(test):
    texts = {name: part for name, part in test["details"].items() if part.content_type.type == "text"}
    details = {name: part.as_text() for name, part in texts.items()}
    print(json.dumps({"name": test["id"], "status": test["status"], "details": details}))
result = testtools.StreamToDict(tell)
result.startTestRun()
subunit.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name="other").run(result)
result.stopTestRun()
"""
"""Runs in tempest's environment: its stream of results as one JSON document a line."""


@dataclass(frozen=True)
class Outcome:
    name: str
    status: str
    reason: str = ""


def run(pattern: str) -> int:
    """The whole: a machine, a cloud, the tests; exit code 0 if all passed."""
    if os.geteuid() != 0:
        sys.exit("tempest needs a cloud, and a cloud needs root")
    if not (BIN / "tempest").exists():
        sys.exit("tempest is not installed: run './cumulet test --tempest', which asks and installs it")
    command: list[str | Path] = [
        HOME / "tests" / "isolated",
        sys.executable,
        "-m",
        "cumulet.cli.tempest",
        pattern or SMOKE,
    ]
    environment = {**os.environ, "HOME": "/run/root"}
    return subprocess.run(command, cwd="/", env=environment, check=False).returncode


def inside(pattern: str) -> int:
    """On the machine: start the cloud unless it runs, then test it."""
    Path.home().mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "cumulet.cli.main", "up", "--yes", "--no-server"], check=True)
    config = configuration.load()
    command: list[str | Path] = [BIN / "tempest", "run", "--regex", pattern, "--concurrency", str(CONCURRENCY)]
    with elsewhere.serving(guest_image(config).parent) as url:
        prepare(config, WORKSPACE, url)
        code = _run(command)
    outcomes = list(_last(WORKSPACE))
    print(summary(outcomes))
    if not outcomes:
        print(f"no test ran, see {WORKSPACE / 'output.txt'}")
    return code if outcomes else 1


def _run(command: list[str | Path]) -> int:
    with (WORKSPACE / "output.txt").open("wb") as output:
        return subprocess.run(
            command, cwd=WORKSPACE, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode


# ── the configuration ────────────────────────────────────────────────────────────────────────────────────────


def prepare(config: Config, workspace: Path, elsewhere_url: str) -> None:
    """A fresh workspace with the cloud's ``tempest.conf``; the guest's image is at ``elsewhere_url``, too."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.parent.mkdir(parents=True, exist_ok=True)
    register = workspace.parent / "workspaces.yaml"  # tempest makes no workspace twice
    register.unlink(missing_ok=True)
    command: list[str | Path] = [BIN / "tempest", "init", workspace, "--workspace-path", register]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
    cloud = Cloud(config)
    parser = configparser.RawConfigParser()
    parser.read_dict(options(cloud, config, workspace, elsewhere_url))
    with (workspace / "etc" / "tempest.conf").open("w") as file:
        parser.write(file)


def options(cloud: Cloud, config: Config, workspace: Path, elsewhere_url: str) -> dict[str, dict[str, Any]]:
    """Everything that is not tempest's default, by section."""
    image = _image(cloud, config, "cirros")
    flavors = {flavor["name"]: flavor["id"] for flavor in cloud.get("compute", "/flavors")["flavors"]}
    networks = {network["name"]: network["id"] for network in cloud.get("network", "/v2.0/networks")["networks"]}
    kinds = {service["type"] for service in cloud.get("identity", "/services")["services"]}
    region = config.node.region
    return {
        "DEFAULT": {"log_file": workspace / "tempest.log", "debug": "true"},
        "oslo_concurrency": {"lock_path": workspace / "lock"},
        "auth": {
            "admin_username": "admin",
            "admin_project_name": "admin",
            "admin_password": secrets.load(config.etc).admin_password,
            "admin_domain_name": "Default",
            "use_dynamic_credentials": "true",
        },
        "identity": {"uri_v3": config.keystone_url, "auth_version": "v3", "region": region},
        "identity-feature-enabled": _identity_features(cloud),
        "image": {
            "region": region,
            "http_image": "",
            "http_qcow2_image": f"{elsewhere_url}/{guest_image(config).name}",
            "build_timeout": 300,
        },
        "image-feature-enabled": _image_features(cloud),
        "compute": {
            "image_ref": image,
            "image_ref_alt": _image(cloud, config, "cirros-alt"),
            "flavor_ref": flavors["m1.nano"],
            "flavor_ref_alt": flavors["m1.tiny"],
            "fixed_network_name": "private",
            "min_compute_nodes": len(cloud.get("compute", "/os-services?binary=nova-compute")["services"]),
            "build_timeout": 300,
            **_compute_versions(cloud),
        },
        "compute-feature-enabled": _compute_features(cloud),
        "network": {
            "region": region,
            "public_network_id": networks["public"],
            "floating_network_name": "public",
        },
        "network-feature-enabled": _network_features(cloud),
        "validation": {
            "image_ssh_user": "cirros",
            "image_alt_ssh_user": "cirros",
            "connect_method": "floating",
            "ssh_key_type": "ecdsa",
        },
        "scenario": {"img_file": guest_image(config), "img_disk_format": "qcow2", "dhcp_client": "udhcpc"},
        "service_available": {
            "horizon": "false",
            **{name: _bool(kind in kinds) for name, kind in SERVICES.items()},
        },
    }


def guest_image(config: Config) -> Path:
    return config.state / "guest" / "cirros.qcow2"


def _image(cloud: Cloud, config: Config, name: str) -> str:
    """The id of the image of this name, uploaded if there is none."""
    wish = {"name": name, "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}
    image = cloud.ensure("image", "/v2/images", name, lambda: wish)
    if image["status"] == "queued":
        with guest_image(config).open("rb") as file:
            cloud.put("image", f"/v2/images/{image['id']}/file", file)
    return str(image["id"])


def _identity_features(cloud: Cloud) -> dict[str, str]:
    user = cloud.find("identity", "/users", "admin") or {}
    return {
        "api_v2": "false",
        "api_v2_admin": "false",
        "trust": _bool(_there(cloud, "identity", "/OS-TRUST/trusts")),
        "access_rules": _bool(_there(cloud, "identity", f"/users/{user.get('id')}/access_rules")),
    }


def _image_features(cloud: Cloud) -> dict[str, str]:
    methods = cloud.get("image", "/v2/info/import")["import-methods"]["value"]
    return {"import_image": _bool(methods)}


def _compute_versions(cloud: Cloud) -> dict[str, str]:
    version = cloud.get("compute", "/")["version"]
    return {"min_microversion": version["min_version"], "max_microversion": version["version"]}


def _compute_features(cloud: Cloud) -> dict[str, str]:
    def has(action: dict[str, Any]) -> bool:
        """Whether the API knows the action: it then misses the server."""
        try:
            cloud.post("compute", f"/servers/{NOBODY}/action", action)
        except Refused as error:
            return error.status == 404
        return True

    several = len(cloud.get("compute", "/os-services?binary=nova-compute")["services"]) > 1
    live = _bool(several and has({"os-migrateLive": {"host": None, "block_migration": "auto"}}))
    return {
        **{name: _bool(has(action)) for name, action in COMPUTE_ACTIONS.items()},
        **dict.fromkeys(LIVE_MIGRATION, live),
        "vnc_console": _bool(_has_console(cloud)),
        "attach_encrypted_volume": "false",
        "change_password": "false",  # it is refused for want of an agent in the guest
        "dhcp_domain": "",  # a server's host name is shown to it as it is
        "hostname_fqdn_sanitization": "true",
        "interface_attach": _bool(_there(cloud, "compute", "/servers/{id}/os-interface")),
    }


def _has_console(cloud: Cloud) -> bool:
    wish = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    try:
        cloud.post("compute", f"/servers/{NOBODY}/remote-consoles", wish)
    except Refused as error:
        return error.status == 404 and NOBODY in str(error)
    return True


def _network_features(cloud: Cloud) -> dict[str, str]:
    known = {extension["alias"] for extension in cloud.get("network", "/v2.0/extensions")["extensions"]}
    return {
        "api_extensions": ",".join(sorted(known)),
        "port_security": _bool("port-security" in known),
        "floating_ips": _bool("router" in known),
        "ipv6_subnet_attributes": "true",
    }


def _there(cloud: Cloud, service: str, path: str) -> bool:
    """Whether there is such a collection, possibly of a server that there is not."""
    try:
        cloud.get(service, path.replace("{id}", NOBODY))
    except Refused as error:
        return error.status not in (404, 405) or NOBODY in str(error)
    return True


def _bool(value: object) -> str:
    return "true" if value else "false"


# ── the outcome ──────────────────────────────────────────────────────────────────────────────────────────────


def summary(outcomes: Iterable[Outcome]) -> str:
    """Counts, and the names of the failures with their reasons."""
    found = list(outcomes)
    failed = [outcome for outcome in found if outcome.status in ("fail", "inprogress", "unknown", "uxsuccess")]
    skipped = [outcome for outcome in found if outcome.status == "skip"]
    passed = len(found) - len(failed) - len(skipped)
    lines = [f"Passed: {passed}", f"Failed: {len(failed)}", f"Skipped: {len(skipped)}"]
    lines += [f"  {outcome.name}\n      {outcome.reason}" for outcome in failed]
    return "\n".join(lines)


def read_outcome(line: str) -> Outcome:
    test = json.loads(line)
    return Outcome(test["name"], test["status"], reason(test["details"]))


def reason(details: dict[str, str]) -> str:
    """One line: the exception at the end of the traceback, with what the server said."""
    text = next((text for name, text in details.items() if name.startswith(("traceback", "reason"))), "")
    lines = [line for line in text.rstrip().splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    start = raised[-1] if raised else 0
    while start and start - 1 in raised and not lines[start - 1].startswith("Traceback"):
        start -= 1
    return " ".join(line.strip() for line in lines[start:])[:400]


def _last(workspace: Path) -> Iterator[Outcome]:
    """What the last run in the workspace came to."""
    stream = subprocess.run([BIN / "stestr", "last", "--subunit"], cwd=workspace, capture_output=True, check=False)
    told = subprocess.run([BIN / "python", "-c", TELL], input=stream.stdout, capture_output=True, check=True)
    return map(read_outcome, told.stdout.decode().splitlines())


if __name__ == "__main__":
    sys.exit(inside(sys.argv[1]))
