"""From what should be and what is to what to do next.  Pure.

One plan is enough: carried out, it leaves nothing for a second one.  A server is never started before the switch
has all its ports wired, a running one never gets a port that is not.  An order to take away goes before anything
else, at any moment.

A machine that is off though it should be on is started, unless it went off by itself: then it had been on since
the latest order and the host's latest boot, so its guest ended it, and only a new order starts it again.  After a
power cut the host has another boot id, and its servers come back.  The same holds for a machine that was paused
(its disk is full, say): to resume it again and again of our own accord would never end.

To stand still ('paused') and to sleep on disk ('suspended') are wishes like 'on' and 'off'; but a guest that has
gone off has nothing left to pause, and stays off.  A machine that sleeps has the devices that it fell asleep with:
it is woken first, then it gets and loses NICs.

A rebuild makes the disk anew, once: until its verb is done nothing else may start the machine.  A disk of another
image than the wanted one, with no rebuild to come, is what a failed rebuild leaves; the plan says so and stops.

A server that moves here is prepared while its other host still has it; its disk is fetched when that host has
ceased ('fetching'), and it is started when it is held no more.  A server that has left on trial is off here and
keeps its files.

A guest that shall be sent elsewhere as it runs is sent and nothing else; once it has been sent ('sent', or its
domain is gone) nothing starts it here again, as long as it shall be sent.  Where it shall come in, all that it
needs is made, and nothing is started: it stands still until the intent says that this host is its host.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from msgspec.structs import replace

from cumulet.nova.model import LIVE, LONGEST_REASON, Domain, Seen, ServerIntent, Verb


class Step(Enum):
    MAKE_DISK = "make disk"
    FETCH_DISK = "fetch disk"
    RECEIVE = "receive"
    RECALL = "recall"
    UNPLUG = "unplug"
    PLUG = "plug"
    DEFINE = "define"
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    SUSPEND = "suspend"
    VERB = "verb"
    CLEAR = "clear copies"
    DESTROY = "destroy"


@dataclass(frozen=True)
class Plan:
    """The steps that can be taken now, in order, and what the rest waits for.

    ``surplus``: the ports that UNPLUG takes away; ``verbs``: what VERB carries out; ``stale``: the verbs whose
    copies CLEAR removes; ``fault``: why this server cannot become what it should be; ``at_rest``: it went off by
    itself and stays so.
    """

    steps: tuple[Step, ...] = ()
    waiting_for: str = ""
    fault: str = ""
    surplus: frozenset[str] = frozenset()
    verbs: tuple[Verb, ...] = ()
    stale: frozenset[int] = frozenset()
    at_rest: bool = False


WIRING = "ports to be wired"
HELD = "the server to be off on its other host"
FETCHED = "the word that it may run here"
LOST_DISK = "The server's disk is not on its host any more."
COMING_IN = "its guest to come in, or not to"
NOT_SURVIVED = "The server has come here, and has gone off before it was let go on."
OTHER_DISK = "The server's disk is not of its image: a rebuild has failed.  Rebuild it again."
_RUNNING = ("on", "paused", "sent")
_BEGINNINGS = frozenset({"reboot", "rebuild", "resize", "revertResize"})
"""Verbs that start the guest anew."""


def of_this_boot(wanted: ServerIntent, boot_id: str) -> ServerIntent:
    """The intent without what was said of the wires in another boot of this host: they are gone."""
    if all(nic.wired_in in ("", boot_id) for nic in wanted.nics):
        return wanted
    nics = tuple(
        nic if nic.wired_in in ("", boot_id) else replace(nic, wired=False, wired_in="") for nic in wanted.nics
    )
    return replace(wanted, nics=nics)


def plan_server(wanted: ServerIntent, actual: Domain, boot_id: str) -> Plan:
    """What to do about one server on a host that has booted as ``boot_id``."""
    if wanted.absent:
        return Plan((Step.DESTROY,) if actual != Domain() else ())
    if wanted.receiving:
        return _plan_receiving(wanted, actual)
    if actual.state == "incoming":
        return Plan(waiting_for=COMING_IN)
    if wanted.kept:
        return _plan_kept(actual)
    if leaving := _leaving(wanted):
        return Plan() if _is_sent(actual) else Plan((Step.VERB,), verbs=leaving)
    verbs = pending_verbs(wanted, actual)
    rebuilt = any(verb.name == "rebuild" for verb in verbs)
    fault = "" if rebuilt else _fault(wanted, actual)
    if fault:
        return Plan(fault=fault)
    running = actual.defined and actual.state in _RUNNING
    nics = frozenset(nic.port_id for nic in wanted.nics)
    surplus = (actual.taps | actual.nics) - nics
    stale = actual.copies - {verb.id for verb in verbs}
    at_rest = went_off(wanted, actual, boot_id)
    must_start = wanted.power == "on" and not at_rest and not (actual.defined and actual.state == "on")
    must_define = not actual.nics >= nics if running else not actual.defined or actual.nics != nics
    unwired = wanted.power != "off" and not all(nic.wired for nic in wanted.nics)
    waits = wanted.held or unwired
    coming = wanted.fetch is not None and not actual.disk
    barred = coming and wanted.held and not wanted.fetching
    asleep = actual.state == "suspended" and wanted.power != "off" and not _begins(verbs)
    define = must_define and not rebuilt and not (unwired and running)
    steps = [
        step
        for step, due in (
            (Step.RECALL, actual.progress is not None),
            (Step.CLEAR, bool(stale)),
            (Step.MAKE_DISK, not actual.disk and not rebuilt and not coming),
            (Step.FETCH_DISK, coming and not barred),
            (Step.UNPLUG, bool(surplus) and not asleep),
            (Step.PLUG, not actual.taps >= nics),
            (Step.STOP, wanted.power == "off" and (running or actual.state == "suspended")),
            (Step.PAUSE, wanted.power == "paused" and running and actual.state == "on"),
            (Step.DEFINE, define and not asleep and not barred),
            (Step.SUSPEND, wanted.power == "suspended" and running),
        )
        if due
    ]
    stays = running and wanted.power in _RUNNING
    ready = _before_beginning(verbs) if waits else verbs
    waiting = waits and (barred or must_start or len(ready) < len(verbs) or (unwired and must_define and stays))
    if must_start and not waiting and not _begins(verbs):
        steps.append(Step.START)
        if asleep:
            steps += [Step.UNPLUG] * bool(surplus) + [Step.DEFINE] * define
    if ready:
        steps.append(Step.VERB)
    return Plan(
        tuple(steps),
        waiting_for=_what_holds(wanted) if waiting else "",
        surplus=surplus,
        verbs=ready,
        stale=stale,
        at_rest=at_rest,
    )


def _what_holds(wanted: ServerIntent) -> str:
    if wanted.held:
        return FETCHED if wanted.fetching else HELD
    return WIRING


def _plan_kept(actual: Domain) -> Plan:
    """Off, and off the network; its files stay.  What sleeps on disk may sleep on."""
    plugged = actual.taps | actual.nics
    steps = [Step.STOP] * (actual.defined and actual.state in _RUNNING) + [Step.UNPLUG] * bool(plugged)
    return Plan(tuple(steps), surplus=plugged)


def _plan_receiving(wanted: ServerIntent, actual: Domain) -> Plan:
    """All that the guest needs, but no domain: that comes with it."""
    if actual.defined and actual.state in ("off", "crashed"):
        return Plan(fault=NOT_SURVIVED)
    nics = frozenset(nic.port_id for nic in wanted.nics)
    surplus = actual.taps - nics
    steps = (
        (Step.RECEIVE, not actual.disk),
        (Step.UNPLUG, bool(surplus) and not actual.defined),
        (Step.PLUG, not actual.taps >= nics),
    )
    waiting = "" if all(nic.wired for nic in wanted.nics) else WIRING
    return Plan(tuple(step for step, due in steps if due), waiting_for=waiting, surplus=surplus)


def is_ready(wanted: ServerIntent, actual: Domain) -> bool:
    """Whether the guest can come in, or the disk of one that is held has come."""
    if wanted.fetching and not wanted.receiving:
        return actual.disk
    wired = all(nic.wired and nic.port_id in actual.taps for nic in wanted.nics)
    return wanted.receiving and actual.disk and wired


def _leaving(wanted: ServerIntent) -> tuple[Verb, ...]:
    """The verb that sends its guest to another host, if there is one."""
    return tuple(verb for verb in wanted.verbs if verb.name == LIVE)


def _is_sent(actual: Domain) -> bool:
    return not actual.defined or actual.state == "sent"


def _fault(wanted: ServerIntent, actual: Domain) -> str:
    """Why this server's disk is not what it should be, in the words that its user knows already."""
    if not actual.disk:
        running = actual.defined and actual.state in (*_RUNNING, "suspended")
        return LOST_DISK if wanted.launched or running else ""
    if wanted.image and actual.image not in ("", wanted.image.id):
        return (wanted.seen.fault if wanted.seen else "") or OTHER_DISK
    return ""


def went_off(wanted: ServerIntent, actual: Domain, boot_id: str) -> bool:
    """Whether it is off (or paused) by itself: on as ordered since this boot, not now, and no order since."""
    seen = wanted.seen
    return (
        wanted.power == "on"
        and actual.defined
        and actual.state not in ("on", "sent")
        and seen is not None
        and seen.reached
        and seen.boot_id == boot_id
        and wanted.start_generation <= seen.generation
    )


def pending_verbs(wanted: ServerIntent, actual: Domain) -> tuple[Verb, ...]:
    """The verbs still to be carried out.  What is not to be on needs no reboot."""
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
    power = _power(wanted, actual)
    return Seen(
        generation=wanted.generation,
        power="off" if power == "crashed" and wanted.power == "off" else power,
        fault=fault,
        waiting=waiting,
        verbs_done=tuple(done),
        verb_faults={str(number): text for number, text in faults.items()},
        boot_id=boot_id,
        reached=wanted.power == "on" and (power == "on" or reached),
        ready=is_ready(wanted, actual),
        progress=actual.progress if _leaving(wanted) else None,
    )


def _power(wanted: ServerIntent, actual: Domain) -> str:
    """A guest that stands still because it was sent, and has come to nothing elsewhere, is a paused one."""
    if _leaving(wanted) and _is_sent(actual):
        return "sent"
    return "paused" if actual.power == "sent" else actual.power


def is_news(seen: Seen, wanted: ServerIntent) -> bool:
    """Whether the controller does not know this yet.  Who was ready once is taken to be so."""
    known = wanted.seen
    if known is None or seen.progress is not None:
        return True
    return replace(seen, ready=seen.ready or known.ready) != replace(known, verbs_done=(), verb_faults={})


def _needless(wanted: ServerIntent, verb: Verb) -> bool:
    return verb.name == "reboot" and wanted.power != "on"


def _begins(verbs: Iterable[Verb]) -> bool:
    return any(verb.name in _BEGINNINGS for verb in verbs)


def _before_beginning(verbs: tuple[Verb, ...]) -> tuple[Verb, ...]:
    """Those that can be done, in their order, before the first that starts the guest."""
    for number, verb in enumerate(verbs):
        if verb.name in _BEGINNINGS:
            return verbs[:number]
    return verbs
