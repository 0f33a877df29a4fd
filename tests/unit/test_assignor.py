"""Tasks are spread evenly, whole, and stay where they are."""

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from hypothesis import given
from hypothesis import strategies as st

from engine.kafka.assignor import Group, Member, assignor_for, place_standbys
from engine.kafka.assignor import balance as balance_members

tasks_of = st.lists(st.integers(0, 7), min_size=1, max_size=3).map(
    lambda widths: [
        (group, number) for group, width in enumerate(widths) for number in range(width)
    ]
)
names = st.lists(st.text("abcdef", min_size=1, max_size=2), min_size=1, max_size=6, unique=True)


def balance(tasks, owned):
    return balance_members(tasks, {name: Member(owned=claims) for name, claims in owned.items()})


def group(*topics):
    return Group(topics, stateful=True)


@st.composite
def situations(draw):
    """Draw tasks, and members that claim some (also ones that are gone, also the same ones)."""
    tasks = draw(tasks_of)
    claims = st.lists(st.sampled_from([*tasks, (9, 9)]), max_size=10, unique=True)
    return tasks, {name: draw(claims) for name in draw(names)}


def everything(shares):
    return sorted(task for share in shares.values() for task in share)


@given(situations())
def test_every_task_has_one_member_and_shares_are_equal(situation):
    tasks, owned = situation
    shares = balance(tasks, owned)
    assert shares.keys() == owned.keys()
    assert everything(shares) == sorted(tasks)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(situations())
def test_every_member_may_compute_it(situation):
    tasks, owned = situation
    turned = dict(reversed(owned.items()))
    assert balance(tasks[::-1], turned) == balance(tasks, owned)


@given(situations())
def test_what_is_balanced_stays(situation):
    """Nobody came or went: nothing moves."""
    tasks, owned = situation
    shares = balance(tasks, owned)
    assert balance(tasks, shares) == shares


@given(situations(), st.text("ghi", min_size=1, max_size=1))
def test_a_newcomer_takes_no_more_than_its_share(situation, newcomer):
    """And nothing moves between the others."""
    tasks, owned = situation
    before = balance(tasks, owned)
    after = balance(tasks, {**before, newcomer: []})
    for member, share in before.items():
        assert set(after[member]) <= set(share)
    assert len(after[newcomer]) <= -(-len(tasks) // (len(before) + 1))


@given(situations())
def test_who_leaves_takes_only_its_own_along(situation):
    tasks, owned = situation
    before = balance(tasks, owned)
    leaver = min(before)
    rest = {member: share for member, share in before.items() if member != leaver}
    if rest:
        after = balance(tasks, rest)
        for member, share in rest.items():
            assert set(share) <= set(after[member])


@given(situations())
def test_no_more_moves_than_must(situation):
    """As many claimed tasks stay as can: by brute force over the sizes of the shares."""
    tasks, owned = situation
    shares = balance(tasks, owned)
    claimed = {}
    for member in sorted(owned, key=lambda member: (-len(owned[member]), member)):
        for task in owned[member]:
            if task in tasks:
                claimed.setdefault(task, member)
    least, extra = divmod(len(tasks), len(owned))
    held = sorted((sum(m == member for m in claimed.values()) for member in owned), reverse=True)
    best = sum(min(have, least + (i < extra)) for i, have in enumerate(held))
    stayed = sum(task in shares[member] for task, member in claimed.items())
    distinct = sum(len(set(tasks) & set(claims)) for claims in owned.values()) == len(claimed)
    if distinct:
        assert stayed == best


@st.composite
def crowds(draw):
    """Draw tasks, and members that say anything of themselves."""
    tasks = draw(tasks_of)
    some = st.lists(st.sampled_from([*tasks, (9, 9)]), max_size=10, unique=True)
    member = st.builds(
        Member, owned=some, standbys=some, kept=some, rack=st.sampled_from(["", "a", "b"])
    )
    return tasks, {name: draw(member) for name in draw(names)}


@given(crowds())
def test_shares_are_equal_whatever_members_say(crowd):
    tasks, said = crowd
    shares = balance_members(tasks, said)
    assert everything(shares) == sorted(tasks)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(crowds(), st.integers(0, 3))
def test_each_task_has_so_many_copies_on_other_workers(crowd, replicas):
    tasks, said = crowd
    active = balance_members(tasks, said)
    copies = place_standbys(tasks, replicas, active, said)
    for task in tasks:
        holders = [name for name in copies if task in copies[name]]
        assert len(holders) == min(replicas, len(said) - 1)
        assert all(task not in active[name] for name in holders)
    assert all(len(set(share)) == len(share) for share in copies.values())


@given(crowds(), st.integers(0, 3))
def test_copies_stay_where_they_are_when_nobody_comes_or_goes(crowd, replicas):
    tasks, said = crowd
    racks = {name: member.rack for name, member in said.items()}
    if len(set(racks.values())) > 1:
        return  # a copy may move for its rack's sake
    active = balance_members(tasks, said)
    copies = place_standbys(tasks, replicas, active, said)
    settled = {
        name: Member(owned=active[name], standbys=copies[name], rack=racks[name]) for name in said
    }
    assert balance_members(tasks, settled) == active
    again = place_standbys(tasks, replicas, active, settled)
    moved = sum(len(set(again[name]) - set(copies[name])) for name in said)
    assert moved <= len(tasks) * max(0, replicas - 1)  # with one copy none, with more a few


def test_a_standby_takes_the_tasks_of_a_worker_that_is_gone():
    tasks = [(0, number) for number in range(6)]
    said = {
        "a": Member(owned=[(0, 0), (0, 1)], standbys=[(0, 4)]),
        "b": Member(owned=[(0, 2), (0, 3)], standbys=[(0, 5)]),
    }
    shares = balance_members(tasks, said)
    assert shares == {"a": [(0, 0), (0, 1), (0, 4)], "b": [(0, 2), (0, 3), (0, 5)]}


def test_a_worker_that_comes_back_gets_the_tasks_whose_stores_it_has():
    tasks = [(0, number) for number in range(4)]
    said = {"a": Member(owned=tasks), "new": Member(kept=[(0, 2), (0, 3)]), "old": Member()}
    assert balance_members(tasks, said)["new"] in ([(0, 2)], [(0, 3)])


def test_a_copy_lies_in_another_rack():
    tasks = [(0, number) for number in range(4)]
    said = {name: Member(rack=rack) for name, rack in zip("abcd", "xxyy", strict=True)}
    active = balance_members(tasks, said)
    copies = place_standbys(tasks, 1, active, said)
    rack_of = {
        task: said[name].rack for name, share in active.items() for task in share
    }  # fmt: skip
    for name, share in copies.items():
        assert all(rack_of[task] != said[name].rack for task in share)


def test_tasks_without_tables_have_no_copies():
    kind = assignor_for([Group(("t",), stateful=False), group("u")], replicas=1)
    other = assignor_for([Group(("t",), stateful=False), group("u")], replicas=1)
    members = {name: kind.metadata({"t", "u"}) for name in ("one", "two")}
    assigned = kind.assign(Cluster(t=2, u=2), members)
    for name, assignor in (("one", kind), ("two", other)):
        assignor.on_assignment(assigned[name])
    assert sorted(kind.standbys() + other.standbys()) == [("u", 0), ("u", 1)]
    assert not set(kind.me.owned) & set(kind.me.standbys)


class Cluster:
    """Knows how many partitions topics have."""

    def __init__(self, **counts):
        self.counts = counts

    def partitions_for_topic(self, topic):
        count = self.counts.get(topic)
        return None if count is None else set(range(count))


def test_a_task_is_one_partition_of_all_its_topics():
    kind = assignor_for([group("events", "profiles"), group("clicks")])
    members = {name: kind.metadata({"events", "profiles", "clicks"}) for name in ("one", "two")}
    assigned = kind.assign(Cluster(events=3, profiles=3, clicks=2), members)
    seen = set()
    for assignment in assigned.values():
        parts = dict(assignment.assignment)
        assert parts.get("events") == parts.get("profiles")
        seen |= {(topic, number) for topic, numbers in parts.items() for number in numbers}
    assert len(seen) == 8


def test_a_member_says_what_it_has_and_keeps_it():
    one, two = assignor_for([group("t")]), assignor_for([group("t")])
    one.on_assignment(ConsumerProtocolMemberAssignment(0, [("t", [1, 3]), ("gone", [0])], b""))
    assert (one.me.owned, two.me.owned) == (
        [(0, 1), (0, 3)],
        [],
    )  # nothing is shared between consumers
    members = {"a": two.metadata(["t"]), "b": one.metadata(["t"])}
    assigned = one.assign(Cluster(t=4), members)
    assert dict(assigned["b"].assignment) == {"t": [1, 3]}
    assert dict(assigned["a"].assignment) == {"t": [0, 2]}


def test_a_topic_that_is_not_there_yet_has_no_tasks():
    kind = assignor_for([group("t")])
    assert dict(kind.assign(Cluster(), {"a": kind.metadata(["t"])})["a"].assignment) == {}


def test_a_member_that_says_something_else_owns_nothing():
    kind = assignor_for([group("t")])
    foreign = kind.metadata(["t"])
    for data in (b"\xff\x00", b"", msgspec.msgpack.encode({"a": 1}), None):
        foreign.user_data = data
        assert dict(kind.assign(Cluster(t=2), {"a": foreign})["a"].assignment) == {"t": [0, 1]}
