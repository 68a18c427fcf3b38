"""From what should be and what is to what to do next.  Pure.

One plan is enough: carried out, it leaves nothing for a second one.  A server is never started before the switch
has all its ports wired, a running one never gets a port that is not.  An order to take away goes before anything
else, at any moment.

A machine that is off though it should be on is started, unless it went off by itself: then it had been on since
the latest order and the host's latest boot, so its guest ended it, and only a new order starts it again.  After a
power cut the host has another boot id, and its servers come back.  The same holds for a machine that was paused
(its disk is full, say): to resume it again and again of our own accord would never end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from msgspec.structs import replace

from cumulet.nova.model import LONGEST_REASON, Domain, Seen, ServerIntent, Verb


class Step(Enum):
    MAKE_DISK = "make disk"
    UNPLUG = "unplug"
    PLUG = "plug"
    DEFINE = "define"
    START = "start"
    STOP = "stop"
    VERB = "verb"
    DESTROY = "destroy"


@dataclass(frozen=True)
class Plan:
    """The steps that can be taken now, in order, and what the rest waits for.

    ``surplus``: the ports that UNPLUG takes away; ``verbs``: what VERB carries out; ``fault``: why this server
    cannot become what it should be; ``at_rest``: it went off by itself and stays so.
    """

    steps: tuple[Step, ...] = ()
    waiting_for: str = ""
    fault: str = ""
    surplus: frozenset[str] = frozenset()
    verbs: tuple[Verb, ...] = ()
    at_rest: bool = False


WIRING = "ports to be wired"
LOST_DISK = "The server's disk is not on its host any more."


def plan_server(wanted: ServerIntent, actual: Domain, boot_id: str) -> Plan:
    """What to do about one server on a host that has booted as ``boot_id``."""
    if wanted.absent:
        return Plan((Step.DESTROY,) if actual != Domain() else ())
    running = actual.defined and actual.state in ("on", "paused")
    if not actual.disk and (wanted.launched or running):
        return Plan(fault=LOST_DISK)
    nics = frozenset(nic.port_id for nic in wanted.nics)
    surplus = (actual.taps | actual.nics) - nics
    verbs = pending_verbs(wanted, actual)
    at_rest = went_off(wanted, actual, boot_id)
    must_start = wanted.power == "on" and not at_rest and not (actual.defined and actual.state == "on")
    must_define = not actual.nics >= nics if running else not actual.defined or actual.nics != nics
    steps = [
        step
        for step, due in (
            (Step.MAKE_DISK, not actual.disk),
            (Step.UNPLUG, bool(surplus)),
            (Step.PLUG, not actual.taps >= nics),
            (Step.STOP, running and wanted.power == "off"),
        )
        if due
    ]
    waits = wanted.power == "on" and not all(nic.wired for nic in wanted.nics)
    if must_define and not (waits and running):
        steps.append(Step.DEFINE)
    if waits and (must_start or verbs or (must_define and running)):
        return Plan(tuple(steps), waiting_for=WIRING, surplus=surplus, at_rest=at_rest)
    if must_start and not _reboots(verbs):
        steps.append(Step.START)
    if verbs:
        steps.append(Step.VERB)
    return Plan(tuple(steps), surplus=surplus, verbs=verbs, at_rest=at_rest)


def went_off(wanted: ServerIntent, actual: Domain, boot_id: str) -> bool:
    """Whether it is off (or paused) by itself: on as ordered since this boot, not now, and no order since."""
    seen = wanted.seen
    return (
        wanted.power == "on"
        and actual.defined
        and actual.state != "on"
        and seen is not None
        and seen.reached
        and seen.boot_id == boot_id
        and wanted.start_generation <= seen.generation
    )


def pending_verbs(wanted: ServerIntent, actual: Domain) -> tuple[Verb, ...]:
    """The verbs still to be carried out.  What is to be off needs no reboot."""
    return tuple(verb for verb in wanted.verbs if verb.id > actual.last_verb and not _needless(wanted, verb))


def what_was_seen(
    wanted: ServerIntent,
    actual: Domain,
    boot_id: str,
    *,
    fault: str = "",
    waiting: str = "",
    reached: bool = False,
    verb_faults: Mapping[int, str] | None = None,
) -> Seen:
    """The report of one server.  ``reached``: it was on as ordered before this look, whatever it did since."""
    fault, waiting = fault[:LONGEST_REASON], waiting[:LONGEST_REASON]
    if wanted.absent:
        return Seen(wanted.generation, actual.power, fault, waiting, boot_id=boot_id)
    faults = verb_faults or {}
    done = (v.id for v in wanted.verbs if v.id <= actual.last_verb or v.id in faults or _needless(wanted, v))
    power = actual.power
    return Seen(
        generation=wanted.generation,
        power="off" if power == "crashed" and wanted.power == "off" else power,
        fault=fault,
        waiting=waiting,
        verbs_done=tuple(done),
        verb_faults={str(number): text for number, text in faults.items()},
        boot_id=boot_id,
        reached=wanted.power == "on" and (power == "on" or reached),
    )


def is_news(seen: Seen, wanted: ServerIntent) -> bool:
    """Whether the controller does not know this yet."""
    return seen != (wanted.seen and replace(wanted.seen, verbs_done=(), verb_faults={}))


def _needless(wanted: ServerIntent, verb: Verb) -> bool:
    return verb.name == "reboot" and wanted.power == "off"


def _reboots(verbs: Iterable[Verb]) -> bool:
    return any(verb.name == "reboot" for verb in verbs)
