"""What must hold after a run, worked out from the input alone: nothing of the engine is used.

I1 nothing is lost · I2 nothing is doubled · I3 order within a partition · I4 stores, changelogs and
recomputation agree · I5 committed offsets never go back, and end at the end · I6 no transaction is
left open · I7 only the owner of a partition commits for it · I8 it comes to an end · I9 no worker
dies but of what it must die of.
"""

from collections import Counter, defaultdict
from json import JSONDecodeError, loads

import msgspec

ZERO = 1 << 63


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant, message):
        self.invariant = invariant
        super().__init__(f"{invariant}: {message}")


def check(run):
    """Raise the first violation in a finished run."""
    check_group(run)
    check_dead_letters(run)
    for number in range(run.width):
        expected = expect(run, number)
        for topic, wanted in expected.outputs.items():
            compare(topic, number, values(run, topic, number), wanted)
        chunks = values(run, "chunks-out", number)
        compare("chunks-out", number, [each for taken in chunks for each in taken], expected.ids)
        if any(not 1 <= len(taken) <= 3 for taken in chunks):
            raise Violation("I2", f"a chunk of a wrong size on {number}: {chunks}")
        check_join(run, number, expected.ids)
    check_moved(run)
    check_stores(run)


# --- the group ------------------------------------------------------------------------------------


def check_group(run):
    """I5, I6, I7."""
    group = run.cluster.group
    last = {}
    generations = {}
    for tp, position, claim in group.history:
        who = f"{tp} by {claim.member or 'nobody'} in generation {claim.generation}"
        owner = group.owners.get(claim.generation, {}).get(tp)
        if owner is None or owner != claim.instance:
            raise Violation("I7", f"{who}, but {owner} owned it")
        if claim.generation < generations.get(tp, 0):
            raise Violation("I7", f"{who}, after generation {generations[tp]}")
        if position.offset < last.get(tp, 0):
            raise Violation("I5", f"{who} went back from {last[tp]} to {position.offset}")
        last[tp], generations[tp] = position.offset, claim.generation
    if hanging := run.cluster.hanging():
        raise Violation("I6", f"left open: {hanging}")
    for tp in run.inputs():
        log = run.cluster.partitions[tp]
        if log.readable(last.get(tp, 0)):
            raise Violation("I5", f"{tp} was committed up to {last.get(tp)} of {len(log)}")


# --- outputs --------------------------------------------------------------------------------------


class Expected:
    """What one partition of the input must lead to."""

    def __init__(self):
        self.ids = []
        self.outputs = defaultdict(list)
        self.totals = Counter()
        self.counts = {}
        self.visits = {}


def good(value):
    """Return a click as (id, user, amount), or None if it breaks the contract."""
    try:
        click = None if value is None else loads(value)
    except (JSONDecodeError, UnicodeDecodeError):
        return None
    if type(click) is not dict or type(click.get("amount")) is not int:
        return None
    return click["id"], click["user"], click["amount"]


def expect(run, number):
    """Work one partition out."""
    settings = run.job
    expected = Expected()
    for topic in ("totals-out", "flaky-out", "large-out", "counts-out", "late-out", "visits-out"):
        expected.outputs[topic] = []
    counts, visits, time = expected.counts, expected.visits, -1
    for _, (_, value, ts, headers) in readable(run, "clicks", number):
        if any(key == "headrace.end-of-input" for key, _ in headers):
            close_counts(expected, None)
            close_visits(expected, None, settings)
            continue
        click = good(value)
        if click is None:
            continue
        key, user, amount = click
        expected.ids.append(key)
        expected.totals[user] += amount
        expected.outputs["totals-out"].append([key, user, expected.totals[user]])
        if not settings.is_poison(key):
            expected.outputs["flaky-out"].append(key)
        if not (run.refuses_large and settings.is_large(key)):
            size = settings.LARGE_BYTES if settings.is_large(key) else 0
            expected.outputs["large-out"].append([key, "x" * size])
        time = max(time, ts)
        start = ts - ts % settings.WINDOW_MS
        if start + settings.WINDOW_MS + settings.WINDOW_GRACE_MS > time:
            counts[start, user] = counts.get((start, user), 0) + 1
        else:
            expected.outputs["late-out"].append(loads(value))
        close_counts(expected, time - settings.WINDOW_MS - settings.WINDOW_GRACE_MS)
        visit(visits, user, ts, time, settings)
        close_visits(expected, time, settings)
    return expected


def close_counts(expected, until):
    """Close the windows that began at ``until`` or before; None: all."""
    for start, user in sorted(expected.counts, key=lambda each: (each[0], each[1].encode())):
        if until is None or start <= until:
            count = expected.counts.pop((start, user))
            expected.outputs["counts-out"].append([user, start, count])


def visit(visits, user, ts, time, settings):
    """Put an event into its session."""
    gap = settings.GAP_MS
    sessions = visits.get(user, [])
    joined = [s for s in sessions if s[1] >= ts - gap and s[0] <= ts + gap]
    start = min([ts, *(s[0] for s in joined)])
    end = max([ts, *(s[1] for s in joined)])
    if end >= time - gap - settings.SESSION_GRACE_MS:
        rest = [s for s in sessions if s not in joined]
        visits[user] = sorted([*rest, [start, end, 1 + sum(s[2] for s in joined)]])


def close_visits(expected, time, settings):
    """Close the sessions that time has overtaken; None: all."""
    closed = []
    for user, sessions in list(expected.visits.items()):
        for s in list(sessions):
            if time is None or s[1] < time - settings.GAP_MS - settings.SESSION_GRACE_MS:
                sessions.remove(s)
                closed.append((s[1], s[0], user.encode(), [user, *s]))
        if not sessions:
            del expected.visits[user]
    expected.outputs["visits-out"] += [row for *_, row in sorted(closed, key=lambda c: c[:3])]


def readable(run, topic, number):
    return run.cluster.partitions[run.tp(topic, number)].readable()


def values(run, topic, number):
    return [loads(value) for _, (_, value, _, _) in readable(run, topic, number)]


def compare(topic, number, got, wanted):
    """I1, I2, I3 for one partition of an output."""
    if got == wanted:
        return
    have, want = Counter(map(repr, got)), Counter(map(repr, wanted))
    place = f"{topic}[{number}]"
    doubled = [row for row, n in have.items() if n > want[row] > 0]
    if doubled:
        raise Violation("I2", f"{place} has twice: {doubled[:5]}")
    foreign = [row for row in have if row not in want]
    lost = list((want - have).elements())
    if lost and not foreign:
        raise Violation("I1", f"{place} lacks {lost[:5]}")
    if foreign:
        first = next(n for n, row in enumerate(got) if repr(row) in foreign)
        raise Violation(
            "I2", f"{place} has what never was: {foreign[:3]} at {first}; it lacks {lost[:3]}"
        )
    raise Violation("I3", f"{place} is out of order: {got} instead of {wanted}")


def check_join(run, number, ids):
    """Each click meets the profile that the table held when it was worked on.

    Between two commits the table goes from one committed position to the next: what a click of
    that transaction met lies between them, and never before what an earlier click met.
    """
    compare("joined-out", number, [row[0] for row in values(run, "joined-out", number)], ids)
    updates = defaultdict(list)
    for offset, (key, value, _, _) in readable(run, "users", number):
        updates[key.decode()].append((offset, loads(value)["v"]))
    spans = table_spans(run, number)
    log = run.cluster.partitions[run.tp("joined-out", number)]
    seen = Counter()
    for offset, (_, value, _, _) in log.readable():
        key, user, version = loads(value)
        if version < seen[user]:
            raise Violation("I3", f"click {key} met {user} of {version} after {seen[user]}")
        seen[user] = version
        before, after = spans[log.transactions[offset]]
        least = max((v for at, v in updates[user] if at < before), default=0)
        most = max((v for at, v in updates[user] if at < after), default=-1)
        if not least <= version <= most:
            raise Violation("I3", f"click {key} met {user} of {version}, not {least} to {most}")


def table_spans(run, number):
    """Return from where to where each transaction brought the table of profiles."""
    users, spans, at = run.tp("users", number), {}, 0
    for tp, position, claim in run.cluster.group.history:
        if tp in {users, run.tp("clicks", number)}:
            before, _ = spans.setdefault(claim.transaction, (at, at))
            if tp == users:
                metadata = position.metadata.partition("|")[2]  # behind the writer's name
                notes = loads(metadata) if metadata else {}
                at = notes.get("ahead", {}).get("!table", position.offset)
            spans[claim.transaction] = before, at
    return spans


def check_dead_letters(run):
    """Each bad record once, with where it came from; each event that an agent cannot bear, too."""
    wanted, got = Counter(), Counter()
    letters = run.refuses_large and run.on_refusal == "dead_letter"
    for number in range(run.width):
        for offset, (_, value, _, headers) in readable(run, "clicks", number):
            click = good(value)
            if click is None and not headers:
                wanted[number, offset, "contract"] += 1
            if click is not None and run.job.is_poison(click[0]):
                wanted[number, offset, "agent.flaky"] += 1
            if click is not None and letters and run.job.is_large(click[0]):
                wanted[number, offset, "agent.large"] += 1
        for _, (_, _, _, headers) in readable(run, "clicks-dlq", number):
            said = {key: value.decode() for key, value in headers}
            rule = said["__contract.rule"]
            rule = rule if rule.startswith("agent.") else "contract"
            place = int(said["__streams.errors.partition"]), int(said["__streams.errors.offset"])
            got[(*place, rule)] += 1
    if got != wanted:
        lost = list((wanted - got).elements())
        extra = list((got - wanted).elements())
        raise Violation("I1" if lost else "I2", f"dead letters: lacks {lost}, has over {extra}")


def check_moved(run):
    """The topic in between has each click once, in order; its readers count them once."""
    between = "sim-move-bucket-repartition"
    per_source = defaultdict(list)
    for number in range(run.width):
        counted = Counter()
        wanted = []
        for _, (_, value, _, _) in readable(run, between, number):
            key = loads(value)["id"]
            bucket = key % run.job.BUCKETS
            counted[bucket] += 1
            wanted.append([key, bucket, counted[bucket]])
            per_source[run.partition_of[key], number].append(key)
        run.bucket_counts[number] = counted
        compare("buckets-out", number, values(run, "buckets-out", number), wanted)
    for number in range(run.width):
        ids = expect(run, number).ids
        got = [per_source[number, target] for target in range(run.width)]
        flat = sorted(key for keys in got for key in keys)
        if flat != sorted(ids):
            more = list((Counter(flat) - Counter(ids)).elements())
            less = list((Counter(ids) - Counter(flat)).elements())
            raise Violation("I2" if more else "I1", f"moved from {number}: {more} over, no {less}")
        order = {key: place for place, key in enumerate(ids)}
        if any(keys != sorted(keys, key=order.__getitem__) for keys in got):
            raise Violation("I3", f"moved out of order from {number}: {got}")


# --- state ----------------------------------------------------------------------------------------


def compacted(run, topic, number, until):
    """Return what the committed records of a topic come to."""
    rows = {}
    log = run.cluster.partitions[run.tp(topic, number)]
    for _, (key, value, _, _) in log.readable(0, until):
        if value is None:
            rows.pop(key, None)
        elif key is not None:
            rows[key] = value
    return rows


def check_stores(run):
    """I4: every store that is left holds what its changelogs held where it says it is."""
    tables = {"0": ("totals", "counts", "visits"), "1": ("buckets",)}
    for disk in run.disks:
        for task, families in disk.stores.items():
            part, _, number = task.partition("_")
            meta = families.get("headrace.meta", {})
            for table in tables[part]:
                topic = f"sim-{table}-changelog"
                at = int(meta.get(f"changelog:{topic}".encode(), 0))
                same(f"{disk.name}/{task}", table, families.get(table, {}),
                     compacted(run, topic, int(number), at))  # fmt: skip
    for number in range(run.width):
        expected = expect(run, number)
        for part, topic in (("0", "clicks"), ("1", "sim-move-bucket-repartition")):
            disk = run.owners[run.tp(topic, number)]
            families = disk.stores.get(f"{part}_{number}", {})
            where = f"{disk.name}/{part}_{number}, the last owner's,"
            for table in tables[part]:
                rows = families.get(table, {})
                log = compacted(run, f"sim-{table}-changelog", number, None)
                same(where, table, rows, log)
                same(where, table, decoded(table, rows), state_of(run, table, number, expected))
            if part == "0":
                rows = families.get("users", {})
                same(where, "users", rows, compacted(run, "users", number, None))


def same(where, table, got, wanted):
    if got != wanted:
        over = {key: value for key, value in got.items() if wanted.get(key) != value}
        lacks = {key: value for key, value in wanted.items() if got.get(key) != value}
        raise Violation("I4", f"{where} {table} holds {over} instead of {lacks}")


def decoded(table, rows):
    """Read the bytes of a table's store: the format is part of what is promised."""
    decode = msgspec.msgpack.decode
    if table == "counts":
        return {
            (int.from_bytes(key[:8], "big") - ZERO, key[8:].decode()): decode(value)[1]
            for key, value in rows.items()
        }
    return {key.decode(): decode(value) for key, value in rows.items()}


def state_of(run, table, number, expected):
    """Return what a table must hold in the end."""
    if table == "totals":
        return dict(expected.totals)
    if table == "counts":
        return expected.counts
    if table == "visits":
        return expected.visits
    return {str(bucket): count for bucket, count in run.bucket_counts[number].items()}
