"""``clouds.yaml`` and an openrc, so that every OpenStack client finds the cloud.

An existing ``clouds.yaml`` is never destroyed: our entry is put into its text, so that other clouds and
comments stay as they are; only where that cannot be done is the file written anew, with a copy kept beside it.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cumulet.core import certificates, secrets
from cumulet.core.config import Config

NAME = "cumulet"


@dataclass(frozen=True)
class Written:
    clouds: Path
    openrc: Path


def write(config: Config) -> Written:
    """Write both files; they are readable by their owner only."""
    password = secrets.load(config.etc).admin_password
    clouds = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "openstack" / "clouds.yaml"
    clouds.parent.mkdir(parents=True, exist_ok=True)
    old = clouds.read_text() if clouds.exists() else ""
    new = merged(old, entry(config, password))
    if new != old:
        if old and yaml.safe_load(old) and NAME in (yaml.safe_load(old).get("clouds") or {}):
            _private(clouds.with_name("clouds.yaml.before-cumulet"), old)
        _private(clouds, new)
    openrc = config.etc / "openrc"
    _private(openrc, _openrc(config, password))
    return Written(clouds, openrc)


def entry(config: Config, password: str) -> dict[str, Any]:
    trusted = {"cacert": str(certificates.authority_path(config))} if config.tls.on else {}
    return {
        **trusted,
        "auth": {
            "auth_url": config.keystone_url,
            "username": "admin",
            "password": str(password),
            "project_name": "admin",
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        "region_name": config.node.region,
        "identity_api_version": 3,
    }


def merged(text: str, mine: dict[str, Any]) -> str:
    """``text`` with our entry below ``clouds``; every other entry means what it meant before."""
    document = yaml.safe_load(text) if text.strip() else {}
    if not isinstance(document, dict):
        raise SystemExit("clouds.yaml is not a mapping; it was left as it is. Repair or move it and repeat.")
    clouds = document.get("clouds") or {}
    if clouds.get(NAME) == mine:
        return text
    wanted = {**document, "clouds": {**clouds, NAME: mine}}
    if NAME not in clouds:
        inserted = _inserted(text, mine)
        if inserted is not None and yaml.safe_load(inserted) == wanted:
            return inserted
    return yaml.safe_dump(wanted, sort_keys=False)


def _inserted(text: str, mine: dict[str, Any]) -> str | None:
    """``text`` with our entry put in as the first below its ``clouds:`` line, indented as its neighbour."""
    lines = text.splitlines()
    if "clouds:" not in [line.rstrip() for line in lines]:
        return (
            None if "clouds" in text else text.rstrip("\n") + ("\n" if text.strip() else "") + _block(mine, 2, True)
        )
    at = [line.rstrip() for line in lines].index("clouds:")
    below = next((line for line in lines[at + 1 :] if line.strip() and not line.lstrip().startswith("#")), "  x")
    indent = len(below) - len(below.lstrip())
    if indent == 0:
        indent = 2
    return "\n".join([*lines[: at + 1], _block(mine, indent, False).rstrip("\n"), *lines[at + 1 :]]) + "\n"


def _block(mine: dict[str, Any], indent: int, whole: bool) -> str:
    body = yaml.safe_dump({NAME: mine}, sort_keys=False)
    text = "".join(" " * indent + line + "\n" for line in body.splitlines())
    return "clouds:\n" + text if whole else text


def _openrc(config: Config, password: str) -> str:
    values = {
        "OS_AUTH_URL": config.keystone_url,
        "OS_USERNAME": "admin",
        "OS_PASSWORD": str(password),
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_REGION_NAME": config.node.region,
        "OS_IDENTITY_API_VERSION": "3",
    }
    if config.tls.on:
        values["OS_CACERT"] = str(certificates.authority_path(config))
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _private(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.rename(path)
