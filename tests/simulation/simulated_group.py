"""The group coordinator of the simulated cluster: the classic protocol, with static members.

Every member has a name of its own for good (its instance), as the engine's workers have: one that
comes back takes over what its name has, under a new member id, and nobody else notices.
"""

from types import SimpleNamespace

from engine.edges import Position
from engine.kafka import protocol
from engine.record import TP

REBALANCE_TIMEOUT_S = 30.0


class Member:
    """One member of the group."""

    def __init__(self, name, instance, worker, session_s):
        self.name = name
        self.instance = instance
        self.worker = worker
        self.session_s = session_s
        self.subscription = None
        self.join = None
        self.sync = None
        self.deadline = 0.0
        self.assignment = None


class Claim:
    """Offsets that a transaction carries, and who said so."""

    def __init__(self, transaction, worker, instance, generation, member, positions):
        self.transaction = transaction
        self.worker = worker
        self.instance = instance
        self.generation = generation
        self.member = member
        self.positions = positions


class Group:
    """See the module.

    Attributes:
        owners: which instance owned a partition in a generation.
        history: (partition, position, claim) as they were committed.
        forgotten: instances whose newest member id a move has lost. Kafka fences them, too.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.loop = cluster.loop
        self.members = {}
        self.generation = 0
        self.state = "empty"  # empty, preparing, completing, stable
        self.leader = None
        self.committed = {}
        self.pending = {}
        self.owners = {}
        self.history = []
        self.away_until = 0.0
        self.forgotten = set()
        self._saved = (0, [])  # what its log says: the last generation that was assigned
        self._count = 0
        self._round = 0
        self._delayed = False

    # -- the coordinator ---------------------------------------------------------------------

    def move(self, for_s):
        """Give the group to another node: it knows only what the log says.

        A rebalance under way is forgotten, and who had left is back until his session expires.
        """
        self.away_until = self.loop.time() + for_s
        for member in self.members.values():
            self._answer(member, "join", protocol.NOT_COORDINATOR)
            self._answer(member, "sync", protocol.NOT_COORDINATOR)
        self.generation, saved = self._saved
        newest = {member.instance: member.name for member in self.members.values()}
        self.members = {}
        self._round += 1
        self.state = "stable" if saved else "empty"
        for name, instance, worker, session_s, subscription, assignment in saved:
            member = self.members[name] = Member(name, instance, worker, session_s)
            member.subscription, member.assignment = subscription, assignment
            self.beat(member)
            if newest.get(instance, name) != name:
                self.forgotten.add(instance)

    def _save(self):
        """Write the group down, if it is in order."""
        if self.state == "stable":
            self._saved = (
                self.generation,
                [
                    (m.name, m.instance, m.worker, m.session_s, m.subscription, m.assignment)
                    for m in self.members.values()
                ],
            )

    def _away(self):
        """Return the error code of a coordinator that is not there, or 0."""
        if self.loop.time() < self.away_until:
            self.cluster.faults.fired["group: on the move"] += 1
            return self.cluster.random.choice(
                (protocol.COORDINATOR_LOADING, protocol.NOT_COORDINATOR)
            )
        return self.cluster.faults.refuse_request()

    def _unknown(self, member, instance):
        """Return the error code for a member id that is not known, or 0."""
        if member in self.members:
            return 0
        taken = any(each.instance == instance for each in self.members.values())
        return protocol.FENCED_INSTANCE_ID if taken else protocol.UNKNOWN_MEMBER_ID

    # -- offsets -----------------------------------------------------------------------------

    def check(self, generation, member, instance):
        """Return the error code for offsets from a member of a generation.

        A transaction's offsets without a member are taken unchecked, as Kafka takes them.
        """
        if code := self._away():
            return code
        if generation < 0 and not member:
            return 0
        if code := self._unknown(member, instance):
            return code
        return 0 if generation == self.generation else protocol.ILLEGAL_GENERATION

    def pend(self, found, generation, member, positions):
        """Keep a transaction's offsets until its marker comes."""
        claim = self.pending.get(found.id)
        if claim is None:
            who = self.members.get(member)
            names = (found.name, None) if who is None else (who.worker, who.instance)
            transaction = found.id, found.serial
            self.pending[found.id] = Claim(transaction, *names, generation, member, dict(positions))
        else:
            claim.positions |= positions

    def decide(self, producer_id, *, committed):
        """Take a transaction's marker."""
        claim = self.pending.pop(producer_id, None)
        if claim is not None and committed:
            for tp, position in claim.positions.items():
                self.history.append((tp, position, claim))
                self.committed[tp] = position
            at = [(str(tp), position.offset) for tp, position in sorted(claim.positions.items())]
            self.cluster.say("offsets", claim.worker, claim.generation, *at)

    def fetch(self, topics):
        """Return committed offsets; those of an open transaction say: wait."""
        unstable = {tp for claim in self.pending.values() for tp in claim.positions}
        answers = []
        for topic, numbers, _ in topics:
            rows = []
            for number in numbers:
                tp = TP(topic, number)
                at = self.committed.get(tp, Position(-1, ""))
                code = protocol.UNSTABLE_OFFSET_COMMIT if tp in unstable else 0
                rows.append((number, at.offset, -1, at.metadata, code, {}))
            answers.append((topic, rows, {}))
        return SimpleNamespace(error_code=self._away(), topics=answers)

    # -- membership --------------------------------------------------------------------------

    def join(self, name, instance, worker, session_s, subscription):
        """Return the answer to a JoinGroup: a future, as a rebalance waits for its members."""
        code = self._away() or (self._unknown(name, instance) if name else 0)
        if code:
            return SimpleNamespace(error_code=code, member_id=name)
        member = self.members[name] if name else self._enter(instance, worker, session_s)
        known = member.subscription
        same = known is not None and known.encode() == subscription.encode()
        member.subscription = subscription
        self._answer(member, "join", protocol.REBALANCE_IN_PROGRESS)
        # who is back, or has nothing new to say, finds the group as it was
        unchanged = not name or (same and name != self.leader)
        if self.state == "stable" and member.assignment is not None and unchanged:
            self.beat(member)
            return self._welcome(member, leads=False)
        member.join = waiting = self.loop.create_future()
        self._prepare()
        self._may_complete()
        return waiting

    def _enter(self, instance, worker, session_s):
        """Give a member id to somebody without one; whoever had his name before is out."""
        self._count += 1
        name = f"{worker}-{self._count}"
        old = next((m for m in self.members.values() if m.instance == instance), None)
        member = self.members[name] = Member(name, instance, worker, session_s)
        if old is not None:
            self.cluster.say("instance taken over", instance, old.name, name)
            del self.members[old.name]
            self._answer(old, "join", protocol.FENCED_INSTANCE_ID)
            self._answer(old, "sync", protocol.FENCED_INSTANCE_ID)
            member.subscription, member.assignment = old.subscription, old.assignment
            self.leader = name if self.leader == old.name else self.leader
            self._save()
        return member

    def _welcome(self, member, *, leads, subscriptions=None):
        return SimpleNamespace(
            error_code=0,
            member_id=member.name,
            generation=self.generation,
            leads=leads,
            subscriptions=subscriptions,
        )

    def _answer(self, member, what, code):
        """Answer a request of a member's that still waits."""
        waiting = getattr(member, what)
        if waiting is not None:
            setattr(member, what, None)
            waiting.set_result(SimpleNamespace(error_code=code, member_id=member.name))
            self.beat(member)

    def _prepare(self):
        if self.state == "preparing":
            return
        self._delayed = self.state == "empty"
        self.state = "preparing"
        self._round += 1
        for member in self.members.values():
            self._answer(member, "sync", protocol.REBALANCE_IN_PROGRESS)
        if self._delayed:  # others may be about to come
            self.loop.later(0.3, self._go_on, self._round)
        self.loop.later(REBALANCE_TIMEOUT_S, self._give_up, self._round)

    def _go_on(self, number):
        if number == self._round:
            self._delayed = False
            self._may_complete()

    def _give_up(self, number):
        """Go on without those who have not joined. They stay members, as they may be back."""
        if number == self._round and self.state == "preparing":
            if any(member.join is not None for member in self.members.values()):
                self._complete()
            else:
                self.loop.later(REBALANCE_TIMEOUT_S, self._give_up, number)

    def _may_complete(self):
        if self.state != "preparing" or self._delayed:
            return
        if not self.members:
            self.state = "empty"
        elif all(member.join is not None for member in self.members.values()):
            self._complete()

    def _complete(self):
        self.generation += 1
        self.state = "completing"
        joined = {name for name, member in self.members.items() if member.join is not None}
        self.leader = self.leader if self.leader in joined else min(joined)
        subscriptions = {name: member.subscription for name, member in self.members.items()}
        self.cluster.say("generation", self.generation, *self.members)
        for member in self.members.values():
            member.assignment = None
            waiting, member.join = member.join, None
            if waiting is not None:
                leads = member.name == self.leader
                waiting.set_result(self._welcome(member, leads=leads, subscriptions=subscriptions))
                self.beat(member)

    def sync(self, name, instance, generation, assignments):
        """Return the answer to a SyncGroup: a future, until the leader has spoken."""
        if code := self._away() or self._unknown(name, instance):
            return SimpleNamespace(error_code=code)
        if generation != self.generation:
            return SimpleNamespace(error_code=protocol.ILLEGAL_GENERATION)
        if self.state == "preparing":
            return SimpleNamespace(error_code=protocol.REBALANCE_IN_PROGRESS)
        member = self.members[name]
        if self.state == "stable":
            return SimpleNamespace(error_code=0, assignment=member.assignment)
        member.sync = waiting = self.loop.create_future()
        if name == self.leader:
            self._assign(assignments)
        return waiting

    def _assign(self, assignments):
        self.state = "stable"
        owners = {}
        for name, member in self.members.items():
            member.assignment = assignments[name]
            owners |= {
                TP(topic, number): member.instance
                for topic, numbers in member.assignment.assignment
                for number in numbers
            }
        self.owners[self.generation] = owners
        self._save()
        for member in self.members.values():
            waiting, member.sync = member.sync, None
            if waiting is not None:
                waiting.set_result(SimpleNamespace(error_code=0, assignment=member.assignment))
                self.beat(member)

    def heartbeat(self, name, instance, generation):
        """Return the error code for a heartbeat."""
        if code := self._away() or self._unknown(name, instance):
            return code
        if generation != self.generation:
            return protocol.ILLEGAL_GENERATION
        self.beat(self.members[name])
        return protocol.REBALANCE_IN_PROGRESS if self.state == "preparing" else 0

    def beat(self, member):
        """Note that a member lives."""
        if member.deadline <= self.loop.time():
            self.loop.later(member.session_s, self._expire, member)
        member.deadline = self.loop.time() + member.session_s

    def _expire(self, member):
        if self.members.get(member.name) is not member:
            return
        left = member.deadline - self.loop.time()
        if member.join is not None or member.sync is not None:
            left = member.session_s
        if left > 0:
            self.loop.later(left, self._expire, member)
        else:
            self.cluster.say("session expired", member.name)
            self.remove(member.name)

    def leave(self, name):
        """Take a member out that says farewell."""
        if not self._away():
            self.remove(name)

    def remove(self, name):
        """Take a member out: it left, or it is silent."""
        member = self.members.pop(name, None)
        if member is not None:
            self._answer(member, "join", protocol.UNKNOWN_MEMBER_ID)
            self._answer(member, "sync", protocol.UNKNOWN_MEMBER_ID)
            self._prepare()
            self._may_complete()
