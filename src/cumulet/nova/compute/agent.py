"""nova-compute: makes this host's machines what the intent says, and reports how they are.

A pass reads the host's whole intent and looks at the whole host once; a server that is as it should be, and known
to be so, costs nothing more.  For any other the host is asked again about that one server, the plan
(``nova.compute.plan``) is made from what is there now and carried out, and what came of it is told if it is news.
Nothing is remembered from one pass to the next: a crash at any moment leaves what the next pass finds.

Machines that the controller does not name are shown in the agent's details and left alone.  If one pass were to
destroy more than ``compute.destroy_limit`` servers it destroys none and says so: the intent may be what is wrong.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.context import REQUEST_ID
from cumulet.core.errors import Retry, Terminal
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.service import HostEnv, Service
from cumulet.host.boot import read_boot_id
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.file_gifts import Gifts
from cumulet.nova.compute.hypervisor import Hypervisor
from cumulet.nova.compute.identity import Identity, Signed
from cumulet.nova.compute.plan import Plan, Step, is_news, of_this_boot, plan_server, what_was_seen
from cumulet.nova.compute.screens import Screens
from cumulet.nova.compute.uptime import read_uptime
from cumulet.nova.model import Domain, ImageSource, Inventory, Seen, ServerIntent, Verb

LOG = logging.getLogger(__name__)
WORKERS = 4
STOPPING_SECONDS = 1.0
"""How often a guest that shuts down, or a verb that takes its time, is looked at."""
INVENTORY_SECONDS = 60.0


class Conductor(Protocol):
    """What nova-compute needs of nova-conductor."""

    def read(self) -> Mapping[str, ServerIntent]: ...
    def report(self, server_id: str, seen: Seen) -> None: ...
    def config_drive(self, server_id: str) -> Mapping[str, bytes]: ...
    def find_inventory(self) -> Inventory | None: ...
    def report_inventory(self, inventory: Inventory) -> None: ...


class HttpConductor:
    """nova-conductor, over HTTP."""

    def __init__(self, controller: Controller, host: str) -> None:
        self._controller, self._base = controller, f"/hosts/{host}"

    def read(self) -> Mapping[str, ServerIntent]:
        return self._controller.get(f"{self._base}/servers", dict[str, ServerIntent])

    def report(self, server_id: str, seen: Seen) -> None:
        self._controller.post(f"{self._base}/servers", {server_id: seen})

    def config_drive(self, server_id: str) -> Mapping[str, bytes]:
        raw = self._controller.get_bytes(f"{self._base}/servers/{server_id}/config-drive")
        return msgspec.json.decode(raw, type=dict[str, bytes])

    def find_inventory(self) -> Inventory | None:
        raw = self._controller.get_bytes(f"{self._base}/inventory")
        return msgspec.json.decode(raw, type=Inventory | None) if raw else None

    def report_inventory(self, inventory: Inventory) -> None:
        self._controller.post(f"{self._base}/inventory", inventory)


class ComputeAgent:
    def __init__(
        self,
        conductor: Conductor,
        hypervisor: Hypervisor,
        config: Config,
        *,
        boot_id: str,
        topic: str = "",
        workers: int = WORKERS,
    ) -> None:
        self._conductor, self._hypervisor, self._config = conductor, hypervisor, config
        self._boot_id, self._topic, self._workers = boot_id, topic, workers
        self._simple = {
            Step.PLUG: hypervisor.plug,
            Step.DEFINE: hypervisor.define,
            Step.START: hypervisor.start,
            Step.PAUSE: hypervisor.pause,
            Step.SUSPEND: hypervisor.suspend,
        }
        self._makers = {
            Step.MAKE_DISK: hypervisor.make_disk,
            Step.FETCH_DISK: hypervisor.fetch_disk,
            Step.RECEIVE: hypervisor.receive,
        }
        self._looked: Mapping[str, Domain] = {}  # this pass's look at the host
        self._too_many = ""  # why this pass destroys nothing
        self._unknown: list[str] = []
        self._inventory: Inventory | None = None

    def reconcilers(self) -> list[Reconciler[Any]]:
        """The servers that are written down, and the host's inventory."""
        return [
            Reconciler(
                "servers",
                self._conductor.read,
                self.reconcile,
                before=self.look,
                topics=(self._topic,) if self._topic else (),
                resync_seconds=self._config.agents.resync_seconds,
                workers=self._workers,
            ),
            Reconciler(
                "inventory",
                self.look_inventory,
                self.tell_inventory,
                resync_seconds=INVENTORY_SECONDS,
                events=False,
            ),
        ]

    def details(self) -> dict[str, Any]:
        """Told with each heartbeat."""
        found: dict[str, Any] = {"unknown": self._unknown}
        with contextlib.suppress(Retry):  # a hypervisor that does not answer yet
            found["inventory"] = msgspec.to_builtins(self._inventory or self._hypervisor.inventory())
        if self._too_many:
            found["stopped"] = self._too_many
        return found

    def look(self, intents: Mapping[str, ServerIntent]) -> None:
        """One look at the host for the whole pass."""
        looked = self._hypervisor.look()
        unknown = sorted(looked.keys() - intents.keys())
        if unknown != self._unknown and unknown:
            LOG.warning("machines that no controller names are left alone: %s", ", ".join(unknown))
        doomed = sum(1 for key, domain in looked.items() if key in intents and _doomed(intents[key], domain))
        limit = self._config.compute.destroy_limit
        too_many = f"would destroy {doomed} servers at once, the limit (compute.destroy_limit) is {limit}"
        if doomed <= limit:
            too_many = ""
        elif not self._too_many:
            LOG.error("%s: nothing is destroyed until an operator raises the limit", too_many)
        self._looked, self._unknown, self._too_many = looked, unknown, too_many

    def reconcile(self, wanted: ServerIntent) -> Later | None:
        wanted = of_this_boot(wanted, self._boot_id)
        plan, seen = self._plan(wanted, self._looked.get(wanted.id, Domain()))
        if not plan.steps and not is_news(seen, wanted):
            _raise_outcome(seen)
            return _again(wanted, seen)
        plan, seen = self._plan(wanted, self._hypervisor.look_at(wanted.id))
        again = False
        if plan.steps:
            seen, again = self._perform(wanted, plan)
        if is_news(seen, wanted):
            self._conductor.report(wanted.id, seen)
        _raise_outcome(seen)
        return Later(STOPPING_SECONDS, "under way") if again else _again(wanted, seen)

    def look_inventory(self) -> Mapping[str, Inventory]:
        self._inventory = self._hypervisor.inventory()
        return {"inventory": self._inventory}

    def tell_inventory(self, inventory: Inventory) -> None:
        if self._conductor.find_inventory() != inventory:
            self._conductor.report_inventory(inventory)

    def _plan(self, wanted: ServerIntent, actual: Domain) -> tuple[Plan, Seen]:
        plan = plan_server(wanted, actual, self._boot_id)
        return plan, what_was_seen(
            wanted, actual, self._boot_id, fault=plan.fault, waiting=plan.waiting_for, reached=plan.at_rest
        )

    def _perform(self, wanted: ServerIntent, plan: Plan) -> tuple[Seen, bool]:
        """Take the steps; what is seen afterwards, and whether something goes on that takes its time."""
        fault, waiting, again, reached = "", plan.waiting_for, False, plan.at_rest
        verb_faults: dict[int, str] = {}
        try:
            for step in plan.steps:
                if not self._take(step, wanted, plan, verb_faults):
                    again = True
                    break
                reached = reached or step is Step.START
        except Terminal as reason:
            fault, waiting = str(reason), ""
        except Retry as reason:
            waiting = str(reason)
        actual = self._hypervisor.look_at(wanted.id)
        return what_was_seen(
            wanted,
            actual,
            self._boot_id,
            fault=fault,
            waiting=waiting,
            reached=reached,
            verb_faults=verb_faults,
        ), again

    def _take(self, step: Step, wanted: ServerIntent, plan: Plan, verb_faults: dict[int, str]) -> bool:
        """Take one step; False if it is under way and has to be called again."""
        LOG.info("server %s: %s", wanted.id, step.value)
        hypervisor = self._hypervisor
        match step:
            case Step.MAKE_DISK | Step.FETCH_DISK | Step.RECEIVE:
                files = self._conductor.config_drive(wanted.id) if wanted.config_drive else {}
                self._makers[step](wanted, files)
            case Step.UNPLUG:
                hypervisor.unplug(wanted, plan.surplus)
            case Step.STOP:
                return hypervisor.stop(wanted)
            case Step.RECALL:
                return hypervisor.recall(wanted)
            case Step.CLEAR:
                hypervisor.clear(wanted, plan.stale)
            case Step.VERB:
                return self._perform_verbs(wanted, plan, verb_faults)
            case Step.DESTROY:
                if self._too_many:
                    raise Retry(self._too_many)
                hypervisor.destroy(wanted)
            case _:
                self._simple[step](wanted)
        return True

    def _perform_verbs(self, wanted: ServerIntent, plan: Plan, verb_faults: dict[int, str]) -> bool:
        """Each in its turn; one that cannot be done does not hold up the next, but a failed rebuild does."""
        for verb in plan.verbs:
            REQUEST_ID.set(verb.request_id or wanted.request_id)
            try:
                if not self._perform_verb(wanted, verb):
                    return False
            except Terminal as reason:
                if verb.name == "rebuild":
                    raise
                verb_faults[verb.id] = str(reason)
        return True

    def _perform_verb(self, wanted: ServerIntent, verb: Verb) -> bool:
        if verb.name != "rebuild":
            return self._hypervisor.perform(wanted, verb)
        files = self._conductor.config_drive(wanted.id) if wanted.config_drive else {}
        return self._hypervisor.rebuild(wanted, verb, files)


def _doomed(wanted: ServerIntent, actual: Domain) -> bool:
    return wanted.absent and actual != Domain()


def _again(wanted: ServerIntent, seen: Seen) -> Later | None:
    """A guest that stands still between two hosts does not wait for a hint."""
    return Later(STOPPING_SECONDS, "on its way") if wanted.receiving or seen.power == "sent" else None


def _raise_outcome(seen: Seen) -> None:
    """Tell the loop what the controller is told."""
    if seen.fault:
        raise Terminal(seen.fault)
    if seen.waiting:
        raise Retry(f"waiting for {seen.waiting}")


def build(env: HostEnv) -> Service:
    from cumulet.nova.compute.libvirt import LibvirtHypervisor

    def fetch_image(image: ImageSource, write: Callable[[bytes], object]) -> None:
        path = f"/hosts/{env.host}/images/{image.id}/file"
        env.glance.download(path, write, {"X-Image-Ticket": image.ticket})

    def store_image(verb: Verb, file: Path) -> None:
        path = f"/hosts/{env.host}/images/{verb.args['image_id']}/file"
        env.glance.upload(path, file, {"X-Image-Ticket": verb.args["ticket"]})

    conductor = HttpConductor(env.nova, env.host)

    def files_ticket(server_id: str) -> str:
        intent = conductor.read().get(server_id)
        return intent.ticket if intent and not intent.receiving else ""

    def guest_ticket(server_id: str) -> str:
        intent = conductor.read().get(server_id)
        return intent.ticket if intent and intent.receiving else ""

    def sign(public_key: str) -> str:
        path = f"/hosts/{env.host}/certificate"
        return env.nova.ask(path, {"public_key": public_key}, Signed).certificate

    hypervisor = LibvirtHypervisor(env.config, env.host, fetch_image, store_image, guest_ticket=guest_ticket)

    agent = ComputeAgent(
        conductor,
        hypervisor,
        env.config,
        boot_id=read_boot_id(env.config.run),
        topic=f"nova.hosts.{env.host}",
    )
    return Service(
        app=console_app(
            env.nova.has_token,
            hypervisor.console_log,
            Screens(env.nova.sign, hypervisor.open_screen),
            hypervisor.diagnostics,
            Gifts(files_ticket, hypervisor.find_gift),
            hypervisor.arrivals,
        ),
        loops=[*agent.reconcilers(), Identity(env.config, env.host, sign).reconciler()],
        start=hypervisor.listen,
        stop=hypervisor.close,
        details=lambda: {**agent.details(), "uptime": read_uptime()},
        websockets=True,
    )
