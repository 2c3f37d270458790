"""A worker in the simulation: its writes land, or half of them, or none, or later; the history records it all.

The faults are those of `workers.replicate.driver`: a request fails and its outcome is unknown, a read has grown
too old, a message to Pub/Sub is lost. Crashes are in `mishaps`.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from replication.apply.effects import Effect, Observation
from replication.apply.outcomes import Outcome
from replication.documents.wire import Write
from replication.effects import Expired, Observe, Pause, Postpone, Publish, Read, Reading
from replication.errors import ConditionFailed, Refused, Transient
from replication.fleet.model import Target
from replication.ports import Message, Received, Written
from replication.simulation import worker
from tests.simulation.history import Ack, Lag
from tests.simulation.record import Fact, LateWrite, is_for

if TYPE_CHECKING:
    from tests.simulation.world import World

SENT_UNTIL_US = 8_500_000
"""As in `workers.replicate.driver`: no write is sent later than this after its read."""
LANDS_UNTIL_US = 9_900_000
"""What is on its way lands until this after its read: less than the 10 s by which writes are recognised."""


class Worker(worker.Worker):
    """One puller of one replica."""

    _world: "World"

    def __init__(self, world: "World", target: Target, number: int) -> None:
        knobs = world.knobs
        super().__init__(world, target, number=number, batch_max=knobs.batch, extends=knobs.extends)

    def crash(self) -> None:
        """The process dies; what it held comes again when its lease has run out, or at once."""
        world = self._world
        world.say(f"{self.name} dies")
        if self.held and world.dice.chance(500):
            self._subscription.extend(list(self.held), 0)
        super().crash()

    def pull(self) -> list[Received]:
        world = self._world
        if not world.unacked[self.replica.id]:
            return []
        batch = super().pull()
        if not batch:
            return batch
        world.history.held_max = max(world.history.held_max, len(batch))
        if any(self._subscription.attempts(item.id) > 1 for item in batch):
            world.sometimes("redelivery")
        if world.trace is not None:
            world.say(f"{self.name} takes messages {' '.join(item.id for item in batch)}")
        return batch

    def failed(self, effect: Effect, error: Exception) -> None:
        self._world.say(f"{self.name}: {type(effect).__name__} fails: {type(error).__name__} {error}")

    # ── effects ───────────────────────────────────────────────────────────────────────────────────────────

    def read(self, effect: Read) -> Reading:
        world = self._world
        if effect.paths and effect.paths[0].startswith(world.fleet.codec.tombstones):
            world.sometimes("tombstone read")
        if world.trace is not None:
            world.say(f"{self.name} reads {effect.replica}: {' '.join(effect.paths)}")
        return super().read(effect)

    def write(self, writes: Sequence[Any], read_at: Any, *, atomic: bool) -> Any:
        world, knobs = self._world, self._world.knobs
        if read_at is not None and world.clock.now - read_at > SENT_UNTIL_US:
            world.sometimes("read too old")
            raise Expired("the read is too long ago")
        if world.unreachable(self.replica.id):
            raise Transient(f"{self.replica.id} is down")
        if knobs.cursed:
            refused = self._refuse_cursed(writes, atomic=atomic)
            if refused is not None:
                return refused
        if world.rate(knobs.unknown_writes):
            self._half(writes, atomic=atomic)
            raise Transient("the answer is lost")
        if read_at is not None and world.rate(knobs.late_writes):
            world.late.append(self._late(writes, read_at, atomic=atomic))
            raise Transient("no answer in time")
        if not atomic and world.rate(knobs.aborted_writes):
            return self._abort_some(writes)
        try:
            return world.store(self.replica.id, writes, atomic=atomic)
        except ConditionFailed:
            guarded = any(
                world.fleet.codec.tombstones in (write.delete or write.update.name) for write in writes
            )
            world.sometimes("guard failed" if guarded else "failed precondition")
            raise

    def _late(self, writes: Sequence[Any], read_at: int, *, atomic: bool) -> LateWrite:
        # Copies: the core may go on with its own.
        copies = [Write.FromString(write.SerializeToString()) for write in writes]
        return LateWrite(self.replica.id, copies, atomic, until=read_at + LANDS_UNTIL_US)

    def _half(self, writes: Sequence[Any], *, atomic: bool) -> None:
        """A request of unknown outcome: all of it landed, or a part, or nothing."""
        world = self._world
        landed: Sequence[Any] = writes if world.dice.chance(500) else ()
        if not atomic and len(writes) > 1:
            landed = [write for write in writes if world.dice.chance(500)]
            world.sometimes("half a batch landed")
        world.sometimes("unknown, landed" if landed else "unknown, not landed")
        if landed:
            try:
                world.store(self.replica.id, landed, atomic=atomic)
            except (ConditionFailed, Refused):
                world.sometimes("unknown, condition failed")

    def _abort_some(self, writes: Sequence[Any]) -> list[Written]:
        """Some writes of a batch get a status of their own that asks for another try."""
        world = self._world
        aborted = [world.dice.chance(500) for _ in writes]
        world.sometimes("status aborted")
        kept = [write for write, lost in zip(writes, aborted, strict=True) if not lost]
        outcomes = iter(world.store(self.replica.id, kept, atomic=False) if kept else ())
        return [Written(10, 0, "aborted") if lost else next(outcomes) for lost in aborted]

    def _refuse_cursed(self, writes: Sequence[Any], *, atomic: bool) -> list[Written] | None:
        """Firestore never takes some documents: a status of their own, or the whole request is void."""
        world = self._world
        cursed = [_is_cursed(write) for write in writes]
        if not any(cursed):
            return None
        world.sometimes("refused write")
        if atomic or world.dice.chance(500):
            raise Refused("invalid document in the request")
        kept = [write for write, bad in zip(writes, cursed, strict=True) if not bad]
        outcomes = iter(world.store(self.replica.id, kept, atomic=False) if kept else ())
        return [Written(3, 0, "invalid document") if bad else next(outcomes) for bad in cursed]

    def publish(self, effect: Publish) -> None:
        world = self._world
        messages = effect.messages
        failing = world.rate(world.knobs.failed_publishes)
        if failing:
            world.sometimes("publish failed")
            messages = messages[: world.dice.below(len(messages) + 1)]
        for message in messages:
            if effect.dead_letters:
                self._bury(message)
                continue
            number = world.publish(message)
            fact = world.facts.messages[number]
            if message.attributes["kind"] == "violation" and fact is not None:
                world.sometimes("misplaced write sent back")
                world.facts.forwarded[fact.path, fact.source, fact.dot] = True
            elif "to" in message.attributes:
                world.sometimes("push-back")
        if failing:
            raise Transient("Pub/Sub confirms nothing")

    def _bury(self, letter: Message) -> None:
        world = self._world
        world.sometimes("dead letter")
        for item in self.held.values():
            if _letter_id(item.id, self.replica.id) == letter.attributes["id"]:
                world.history.buried[f"{item.id} at {self.replica.id}"] += 1
                world.say(f"{self.name}: dead letter {item.id}", letter.attributes["error"])

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        world, replica = self._world, self.replica.id
        acked = [self.held[ack_id] for ack_id in ack_ids]
        world.history.acks += [self._ack(item) for item in acked]
        if world.rate(world.knobs.failed_acks):
            world.sometimes("acknowledgement lost")
            for ack_id in ack_ids:
                del self.held[ack_id]
            return
        if world.trace is not None:
            world.say(f"{self.name} acknowledges {' '.join(ack_ids)}")
        super().acknowledge(ack_ids)
        for item in acked:
            world.unacked[replica].pop(item.id, None)

    def postpone(self, effect: Postpone) -> None:
        self._world.sometimes("postponed")
        super().postpone(effect)

    def pause(self, effect: Pause) -> None:
        self._world.sometimes("pause")

    def _ack(self, item: Received) -> Ack:
        world, replica = self._world, self.replica.id
        fact = world.facts.messages[item.id]
        attributes = item.message.attributes
        if not is_for(attributes, replica):
            return Ack(replica, item.id, {}, {}, settled=True)
        if fact is None or attributes.get("kind") not in {"write", "delete", "merged", "violation"}:
            return Ack(replica, item.id, {}, {}, f"{item.id} at {replica}" in world.history.buried)
        standing = world.facts.standing.get((replica, fact.path), {})
        needs = fact.needs
        if all(standing.get(name, 0) >= dot for name, dot in needs.items()) and fact.kind != "violation":
            return Ack(replica, item.id, needs, needs, settled=False)
        return Ack(replica, item.id, needs, dict(standing), self._settled(item, fact))

    def _settled(self, item: Received, fact: Fact) -> bool:
        world, replica = self._world, self.replica.id
        if f"{item.id} at {replica}" in world.history.buried:
            return True
        if fact.kind == "violation":
            return (replica, fact.path, fact.source, fact.dot) in world.facts.records
        rule = world.fleet.rule_for(fact.path)
        if rule.primary is not None and fact.source != rule.primary:
            return fact.kind == "merged" or (fact.path, fact.source, fact.dot) in world.facts.forwarded
        return False

    def observe(self, effect: Observe[Observation]) -> None:
        world, replica = self._world, self.replica.id
        sometimes = world.sometimes
        for observation in effect.observations:
            sometimes(f"outcome: {observation.outcome.value}")
            conflict = observation.conflict
            if conflict is not None:
                if conflict.failure:
                    sometimes("policy failed")
                if conflict.winner.version.mixed:
                    sometimes("computed body")
            if observation.faults:
                sometimes("metadata not believed")
            fact = world.facts.messages.get(observation.message_id)
            if observation.outcome is Outcome.DEAD_LETTER or fact is None:
                continue
            if observation.lag_us is not None:
                landed = world.facts.landed.get((replica, fact.path), ())
                true = tuple(time - fact.commit_time for time in landed)
                world.history.lags.append(Lag(replica, observation.message_id, observation.lag_us, true))


def _letter_id(message: str, target: str) -> str:
    return hashlib.blake2b(f"{message}\0{target}".encode(), digest_size=16).hexdigest()


def _is_cursed(write: Any) -> bool:
    """Whether a write brings a cursed body, as a document or in the conflict log."""
    fields = write.update.fields
    return bool("cursed" in fields or ("body" in fields and "cursed" in fields["body"].map_value.fields))
