"""plan_server, over every pair of intent and reality."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.nova.compute.plan import (
    FETCHED,
    LOST_DISK,
    OTHER_DISK,
    Plan,
    Step,
    is_news,
    of_this_boot,
    plan_server,
    went_off,
    what_was_seen,
)
from cumulet.nova.model import LIVE, Domain, Fetch, ImageSource, Nic, Progress, Seen, ServerIntent, Verb

BOOT = "this boot"
IMAGE = ImageSource("image", "qcow2", 1, 1, "", "")
PORTS = ("p1", "p2")
FETCH = Fetch("h2", "192.0.2.2", 1, "ticket")

nics = st.lists(
    st.builds(Nic, st.sampled_from(PORTS), st.just("m"), st.just(1450), st.just("n"), st.booleans()),
    max_size=2,
    unique_by=lambda nic: nic.port_id,
).map(tuple)
seens = st.none() | st.builds(
    Seen,
    generation=st.integers(1, 3),
    power=st.sampled_from(["on", "off", "crashed", "paused", "suspended", "absent"]),
    boot_id=st.sampled_from([BOOT, "before"]),
    reached=st.booleans(),
)
intents = st.builds(
    ServerIntent,
    id=st.just("s"),
    project_id=st.just("p"),
    name=st.just("vm"),
    vcpus=st.just(1),
    memory_mb=st.just(1),
    root_gb=st.just(1),
    image=st.none() | st.just(IMAGE),
    power=st.sampled_from(["on", "off", "paused", "suspended"]),
    absent=st.booleans(),
    generation=st.just(3),
    nics=nics,
    verbs=st.dictionaries(st.integers(1, 3), st.sampled_from(["reboot", "rebuild", "createImage"])).map(
        lambda verbs: tuple(Verb(number, verbs[number]) for number in sorted(verbs))
    ),
    seen=seens,
    start_generation=st.sampled_from([0, 2, 3]),
    launched=st.booleans(),
    held=st.booleans(),
    fetching=st.booleans(),
    fetch=st.none() | st.just(FETCH),
).map(
    lambda intent: replace(
        intent,
        launched=intent.launched and intent.fetch is None,
        fetching=intent.fetching and intent.held and intent.fetch is not None,
    )
)
ports = st.frozensets(st.sampled_from(PORTS))
domains = st.builds(
    Domain,
    taps=ports,
    files=st.booleans(),
    disk=st.booleans(),
    defined=st.booleans(),
    nics=ports,
    image=st.sampled_from(["", "image", "another"]),
    copies=st.frozensets(st.integers(1, 3)),
    state=st.sampled_from(["on", "off", "paused", "suspended", "crashed", "sent"]),
    progress=st.none() | st.just(Progress()),
    last_verb=st.integers(0, 3),
).map(lambda d: d if d.defined else replace(d, state="off", nics=frozenset(), last_verb=0))

Effect = Callable[[Domain, ServerIntent, Plan], Domain]
EFFECT: dict[Step, Effect] = {
    Step.MAKE_DISK: lambda d, w, p: replace(d, files=True, disk=True, image=w.image.id if w.image else ""),
    Step.FETCH_DISK: lambda d, w, p: replace(d, files=True, disk=True, image=w.image.id if w.image else ""),
    Step.RECEIVE: lambda d, w, p: replace(d, files=True, disk=True),
    Step.RECALL: lambda d, w, p: replace(d, progress=None),
    Step.PLUG: lambda d, w, p: replace(d, taps=d.taps | _wanted(w)),
    Step.UNPLUG: lambda d, w, p: replace(d, taps=d.taps - p.surplus, nics=d.nics - p.surplus),
    Step.DEFINE: lambda d, w, p: replace(d, defined=True, nics=_wanted(w)),
    Step.START: lambda d, w, p: replace(d, state="on"),
    Step.STOP: lambda d, w, p: replace(d, state="off"),
    Step.PAUSE: lambda d, w, p: replace(d, state="paused"),
    Step.SUSPEND: lambda d, w, p: replace(d, state="suspended"),
    Step.CLEAR: lambda d, w, p: replace(d, copies=d.copies - p.stale),
    Step.VERB: lambda d, w, p: _perform(d, w, p),
    Step.DESTROY: lambda d, w, p: Domain(),
}


def _perform(actual: Domain, wanted: ServerIntent, plan: Plan) -> Domain:
    for verb in plan.verbs:
        actual = replace(actual, last_verb=verb.id, copies=actual.copies - {verb.id})
        if verb.name == "reboot":
            actual = replace(actual, state="on")
        if verb.name == "rebuild":
            state = "on" if wanted.power == "on" else "off"
            image = wanted.image.id if wanted.image else ""
            made = {"files": True, "disk": True, "image": image, "defined": True, "nics": _wanted(wanted)}
            actual = replace(actual, state=state, **made)
    return actual


def _wanted(wanted: ServerIntent) -> frozenset[str]:
    return frozenset(nic.port_id for nic in wanted.nics)


def carry_out(plan: Plan, wanted: ServerIntent, actual: Domain) -> Domain:
    for step in plan.steps:
        actual = EFFECT[step](actual, wanted, plan)
    return actual


@settings(max_examples=300)
@given(intents, domains)
def test_one_plan_is_enough(wanted: ServerIntent, actual: Domain) -> None:
    plan = plan_server(wanted, actual, BOOT)
    after = carry_out(plan, wanted, actual)
    assert plan_server(wanted, after, BOOT).steps == ()
    seen = what_was_seen(wanted, after, BOOT, waiting=plan.waiting_for, fault=plan.fault, reached=plan.at_rest)
    told = replace(wanted, seen=seen)
    assert plan_server(told, after, BOOT).steps == ()
    assert plan_server(told, after, BOOT).waiting_for == plan.waiting_for


@settings(max_examples=300)
@given(intents, domains)
def test_the_end_is_what_was_wanted(wanted: ServerIntent, actual: Domain) -> None:
    plan = plan_server(wanted, actual, BOOT)
    after = carry_out(plan, wanted, actual)
    if wanted.absent:
        assert after.power == "absent"
    elif not plan.waiting_for and not plan.fault:
        assert after.defined
        assert after.disk
        if after.state != "suspended":
            assert after.taps == after.nics == _wanted(wanted)
        assert after.copies <= {verb.id for verb in wanted.verbs}
        if wanted.power == "off":
            assert after.state not in ("on", "paused", "suspended")
        elif wanted.power == "paused":
            assert after.state != "on"
        elif wanted.power == "suspended":
            assert after.state not in ("on", "paused")
        elif not went_off(wanted, actual, BOOT):
            assert after.state == "on"


@settings(max_examples=300)
@given(intents, domains)
def test_a_guest_never_gets_a_port_that_is_not_wired(wanted: ServerIntent, actual: Domain) -> None:
    wired = {nic.port_id for nic in wanted.nics if nic.wired}
    plan = plan_server(wanted, actual, BOOT)
    had = actual.nics if actual.state in ("on", "paused", "suspended") else frozenset()
    for step in plan.steps:
        actual = EFFECT[step](actual, wanted, plan)
        if actual.state in ("on", "paused"):
            assert actual.nics - had <= wired


@settings(max_examples=300)
@given(intents, domains)
def test_a_disk_with_data_is_never_made_anew(wanted: ServerIntent, actual: Domain) -> None:
    if wanted.launched and not wanted.absent:
        plan = plan_server(wanted, actual, BOOT)
        assert Step.MAKE_DISK not in plan.steps
        rebuilt = any(verb.name == "rebuild" for verb in plan.verbs) or plan.waiting_for
        assert rebuilt or (plan.fault == LOST_DISK) == (not actual.disk)


@settings(max_examples=300)
@given(intents, domains)
def test_nothing_starts_while_its_other_host_has_it(wanted: ServerIntent, actual: Domain) -> None:
    held = replace(wanted, held=True, absent=False)
    plan = plan_server(held, actual, BOOT)
    assert not {Step.START, *([] if held.fetching else [Step.FETCH_DISK])} & set(plan.steps)
    assert not {"reboot", "rebuild"} & {verb.name for verb in plan.verbs}


@settings(max_examples=300)
@given(intents, domains)
def test_a_disk_that_may_come_comes_and_is_told_of(wanted: ServerIntent, actual: Domain) -> None:
    """But for a rebuild, which would make it anew."""
    coming = replace(wanted, held=True, fetching=True, fetch=FETCH, launched=False, absent=False, verbs=())
    there = replace(actual, disk=False, defined=False, state="off", nics=frozenset(), progress=None)
    plan = plan_server(coming, there, BOOT)
    assert Step.FETCH_DISK in plan.steps
    assert plan.waiting_for == (FETCHED if wanted.power == "on" else "")
    after = carry_out(plan, coming, there)
    assert (after.disk, after.state) == (True, "off")
    assert (what_was_seen(coming, there, BOOT).ready, what_was_seen(coming, after, BOOT).ready) == (False, True)


@settings(max_examples=300)
@given(intents, domains)
def test_who_has_left_on_trial_is_off_and_keeps_its_files(wanted: ServerIntent, actual: Domain) -> None:
    kept = replace(wanted, kept=True, absent=False, verbs=())
    plan = plan_server(kept, actual, BOOT)
    after = carry_out(plan, kept, actual)
    assert after.state not in ("on", "paused")
    assert after.taps == after.nics == frozenset()
    assert (after.disk, after.files) == (actual.disk, actual.files)
    assert plan_server(kept, after, BOOT).steps == ()


@settings(max_examples=300)
@given(intents, domains)
def test_who_is_sent_away_is_not_started_here(wanted: ServerIntent, actual: Domain) -> None:
    leaves = replace(wanted, absent=False, verbs=(Verb(9, LIVE),))
    plan = plan_server(leaves, actual, BOOT)
    assert set(plan.steps) <= {Step.VERB}
    seen = what_was_seen(leaves, actual, BOOT)
    assert (plan.steps == ()) == (seen.power == "sent") == (not actual.defined or actual.state == "sent")
    assert seen.verbs_done == ()


@settings(max_examples=300)
@given(intents, domains)
def test_where_a_guest_shall_come_in_all_is_made_and_nothing_runs(wanted: ServerIntent, actual: Domain) -> None:
    receiving = replace(wanted, absent=False, receiving=True, kept=True, verbs=())
    plan = plan_server(receiving, actual, BOOT)
    after = carry_out(plan, receiving, actual)
    assert set(plan.steps) <= {Step.RECEIVE, Step.PLUG, Step.UNPLUG}
    assert (after.defined, after.state) == (actual.defined, actual.state)
    assert plan_server(receiving, after, BOOT).steps == ()
    seen = what_was_seen(receiving, after, BOOT, fault=plan.fault, waiting=plan.waiting_for)
    assert plan.fault or seen.ready == (not plan.waiting_for)


@settings(max_examples=300)
@given(intents, domains)
def test_an_order_to_destroy_goes_before_all(wanted: ServerIntent, actual: Domain) -> None:
    plan = plan_server(replace(wanted, absent=True), actual, BOOT)
    assert plan.steps == ((Step.DESTROY,) if actual != Domain() else ())
    assert not plan.waiting_for


@settings(max_examples=300)
@given(intents, domains)
def test_what_was_reported_is_no_news(wanted: ServerIntent, actual: Domain) -> None:
    """Told once, an unchanged server is quiet: also one that waits, and one that went off by itself."""
    plan = plan_server(wanted, actual, BOOT)
    actual = carry_out(plan, wanted, actual)
    seen = what_was_seen(wanted, actual, BOOT, waiting=plan.waiting_for, fault=plan.fault, reached=plan.at_rest)
    told = replace(seen, verbs_done=(), verb_faults={})
    settled = tuple(v for v in wanted.verbs if v.id not in seen.verbs_done)
    start = wanted.start_generation if not seen.reached else 0
    later = replace(wanted, seen=told, verbs=settled, start_generation=start)
    again = plan_server(later, actual, BOOT)
    assert again.steps == ()
    seen = what_was_seen(later, actual, BOOT, waiting=again.waiting_for, fault=again.fault, reached=again.at_rest)
    assert not is_news(seen, later)


def server(**changes: object) -> ServerIntent:
    plain = ServerIntent("s", "p", "vm", 1, 1, 1, None, "on", False, 2, (Nic("p1", "m", 1450, "n", True),))
    return replace(plain, **changes)


OFF = Domain(frozenset({"p1"}), True, True, True, frozenset({"p1"}), "off")
ON = replace(OFF, state="on")
CAME_UP = Seen(2, "on", boot_id=BOOT, reached=True)


def test_a_guest_that_ended_itself_is_left_off_and_shown_so() -> None:
    wanted = server(seen=CAME_UP, launched=True)
    for state in ("off", "crashed"):
        actual = replace(OFF, state=state)
        assert plan_server(wanted, actual, BOOT) == Plan(at_rest=True)
        seen = what_was_seen(wanted, actual, BOOT, reached=True)
        assert seen == Seen(2, state, boot_id=BOOT, reached=True)
        assert plan_server(replace(wanted, seen=seen), actual, BOOT) == Plan(at_rest=True)


def test_an_order_to_start_brings_it_back_and_a_mere_change_does_not() -> None:
    gone_off = Seen(2, "off", boot_id=BOOT, reached=True)
    assert plan_server(server(seen=gone_off, generation=3), OFF, BOOT).steps == ()
    assert plan_server(server(seen=gone_off, generation=3, start_generation=3), OFF, BOOT).steps == (Step.START,)


def test_after_a_power_cut_servers_come_back_though_they_have_to_wait_first() -> None:
    wanted = server(seen=CAME_UP, launched=True, nics=(Nic("p1", "m", 1450, "n", False),))
    plan = plan_server(wanted, replace(OFF, taps=frozenset()), "next boot")
    assert plan.steps == (Step.PLUG,)
    seen = what_was_seen(wanted, OFF, "next boot", waiting=plan.waiting_for)
    assert seen == Seen(2, "off", waiting=plan.waiting_for, boot_id="next boot")
    assert plan_server(server(seen=seen, launched=True), OFF, "next boot").steps == (Step.START,)


def test_wires_of_an_earlier_boot_are_none() -> None:
    """The switch has forgotten them, whatever its agent said before."""
    for boot, steps in (
        (BOOT, (Step.PLUG,)),
        ("next boot", (Step.PLUG, Step.START)),
        ("", (Step.PLUG, Step.START)),
    ):
        wanted = server(seen=CAME_UP, launched=True, nics=(Nic("p1", "m", 1450, "n", True, boot),))
        plan = plan_server(of_this_boot(wanted, "next boot"), replace(OFF, taps=frozenset()), "next boot")
        assert plan.steps == steps, boot


def test_a_restarted_agent_finds_all_well() -> None:
    assert plan_server(server(seen=CAME_UP, launched=True), ON, BOOT) == Plan()


def test_a_reboot_starts_what_is_off_and_is_needless_for_what_shall_be_off() -> None:
    reboot = (Verb(7, "reboot"),)
    plan = plan_server(server(seen=CAME_UP, verbs=reboot, start_generation=3), OFF, BOOT)
    assert plan.steps == (Step.VERB,)
    wanted = server(verbs=reboot, power="off")
    assert plan_server(wanted, ON, BOOT).steps == (Step.STOP,)
    assert what_was_seen(wanted, OFF, BOOT).verbs_done == (7,)


def test_a_paused_machine_is_resumed_by_an_order_only() -> None:
    paused = replace(ON, state="paused")
    assert plan_server(server(seen=CAME_UP), paused, BOOT).steps == ()
    assert plan_server(server(seen=CAME_UP, start_generation=3), paused, BOOT).steps == (Step.START,)
    assert plan_server(server(seen=CAME_UP, power="off"), paused, BOOT).steps == (Step.STOP,)


def test_a_wish_to_stand_still_or_to_sleep() -> None:
    assert plan_server(server(seen=CAME_UP, power="paused"), ON, BOOT).steps == (Step.PAUSE,)
    assert plan_server(server(seen=CAME_UP, power="suspended"), ON, BOOT).steps == (Step.SUSPEND,)
    for state in ("off", "crashed"):
        for power in ("paused", "suspended"):
            assert plan_server(server(seen=CAME_UP, power=power), replace(OFF, state=state), BOOT) == Plan()
    asleep = replace(OFF, state="suspended")
    assert plan_server(server(power="suspended"), asleep, "next boot") == Plan()
    assert plan_server(server(start_generation=3), asleep, "next boot").steps == (Step.START,)
    assert plan_server(server(power="off"), asleep, BOOT).steps == (Step.STOP,)


def test_who_sleeps_keeps_its_devices_until_it_is_awake() -> None:
    asleep = replace(OFF, state="suspended", taps=frozenset(PORTS), nics=frozenset({"p2"}))
    assert plan_server(server(power="suspended"), asleep, BOOT).steps == ()
    assert plan_server(server(), asleep, BOOT).steps == (Step.START, Step.UNPLUG, Step.DEFINE)


def test_a_rebuild_goes_before_any_start_and_a_failed_one_is_seen() -> None:
    wanted = server(launched=True, image=IMAGE, verbs=(Verb(5, "rebuild"),), start_generation=3)
    for disk in (True, False):
        actual = replace(OFF, disk=disk, image="another")
        assert plan_server(wanted, actual, BOOT).steps == (Step.VERB,)
    plan = plan_server(replace(wanted, verbs=()), replace(OFF, image="another"), BOOT)
    assert plan == Plan(fault=OTHER_DISK)
    refused = replace(wanted, verbs=(), seen=Seen(2, "off", fault="the image is refused"))
    assert plan_server(refused, replace(OFF, image="another"), BOOT).fault == "the image is refused"
    assert plan_server(replace(wanted, power="off"), replace(ON, image="x"), BOOT).steps == (Step.STOP, Step.VERB)


def test_a_guest_that_was_sent_and_has_not_arrived_goes_on() -> None:
    back = replace(ON, state="sent")
    assert plan_server(server(seen=CAME_UP, launched=True), back, BOOT).steps == (Step.START,)
    paused = server(seen=CAME_UP, launched=True, power="paused")
    assert plan_server(paused, back, BOOT).steps == ()
    assert what_was_seen(paused, back, BOOT).power == "paused"
    gone = Domain(files=True, disk=True)
    assert plan_server(server(seen=CAME_UP, launched=True), gone, BOOT).steps == (
        Step.PLUG,
        Step.DEFINE,
        Step.START,
    )


def test_a_job_that_nobody_ordered_is_broken_off() -> None:
    sending = replace(ON, progress=Progress(memory_total=1))
    assert plan_server(server(seen=CAME_UP, launched=True), sending, BOOT).steps == (Step.RECALL,)
    assert plan_server(server(launched=True), replace(ON, state="incoming"), BOOT).steps == ()


def test_a_copy_that_nobody_waits_for_is_removed() -> None:
    plan = plan_server(server(seen=CAME_UP, verbs=(Verb(6, "createImage"),)), replace(ON, copies={5, 6}), BOOT)
    assert plan.steps == (Step.CLEAR, Step.VERB)
    assert plan.stale == frozenset({5})


def test_a_nic_comes_and_goes_while_the_machine_runs() -> None:
    second = Nic("p2", "m", 1450, "n", False)
    wanted = server(seen=CAME_UP, launched=True, nics=(*server().nics, second))
    plan = plan_server(wanted, ON, BOOT)
    assert (plan.steps, plan.waiting_for) == ((Step.PLUG,), "ports to be wired")
    wanted = replace(wanted, nics=(*server().nics, replace(second, wired=True)))
    assert plan_server(wanted, replace(ON, taps=frozenset(PORTS)), BOOT).steps == (Step.DEFINE,)
    both = replace(ON, taps=frozenset(PORTS), nics=frozenset(PORTS))
    plan = plan_server(server(seen=CAME_UP, launched=True), both, BOOT)
    assert (plan.steps[0], plan.surplus) == (Step.UNPLUG, frozenset({"p2"}))
