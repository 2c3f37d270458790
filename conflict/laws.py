"""The laws a policy must keep, and a check of them for an application's own; for its tests.

    from conflict.laws import assert_lawful

    def test_our_policy_is_lawful():
        assert_lawful(our_policy, examples=[{"status": "open", "tags": ["a"]}, {"status": "done"}])

A replica may meet the versions of a document in any order, some of them twice, and merged by others in any
grouping. All replicas still reach one body if merging is a join: commutative, associative and idempotent
(Shapiro et al. 2011, "Conflict-free replicated data types"). In the order they are checked:

    total          answers every pair with a side or with fields that Firestore can hold; raises nothing
    pure           leaves both sides as they were
    deterministic  the same pair has the same answer, also later on
    commutative    (a, b) has the answer of (b, a)
    idempotent     (a, a) has the answer a
    associative    of three, it does not matter which two are merged first; nor that one comes again
    quick          a call takes no longer than allowed; checked only with a clock: `clock=time.perf_counter`

What is compared is what `resolve` makes of an answer: the body and its place in the total order. So a policy
is caught that gives the right body with the wrong side's stamp, which goes wrong at the next merge. A check is
no proof: give an example of every shape the documents have.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from hashlib import blake2b
from itertools import combinations_with_replacement, product
from types import MappingProxyType

from conflict.policies import Custom
from conflict.resolve import Candidate, Fields, Policy, resolve
from conflict.values import sort_key
from conflict.version import Version

Decide = Callable[[Candidate, Candidate], Candidate | Fields]
"""A policy, or a plain function that is to become one."""

Clock = Callable[[], float]
"""Seconds from any start, never going back."""

SAMPLES = 16
SECONDS_PER_CALL = 0.001

_TIMED_CALLS_MAX = 5
_SHOWN_CHARACTERS_MAX = 400
_START = 1_700_000_000_000_000
# Versions lie microseconds, seconds or hours apart: a policy that takes "at nearly the same time" for equal
# is not associative, and only a sample of all three shows it.
_APART = (1, 1_000_000, 3_600_000_000)


class LawBroken(AssertionError):
    """A policy breaks `law`; the text shows for which versions, and the answers that disagree."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"the policy is not {law}: {text}")
        self.law = law


def assert_lawful(
    policy: Decide,
    examples: Sequence[Fields],
    *,
    samples: int = SAMPLES,
    seed: int = 1,
    clock: Clock | None = None,
    seconds_per_call: float = SECONDS_PER_CALL,
) -> None:
    """Check a policy on versions made of `examples`, whole bodies; raises `LawBroken`.

    Another `seed` makes other versions. `samples` is how many are made; the work grows with its third power.
    """
    versions = candidates(examples, count=samples, seed=seed)
    check(policy, versions, clock=clock, seconds_per_call=seconds_per_call)


def check(
    policy: Decide,
    samples: Sequence[Candidate],
    *,
    clock: Clock | None = None,
    seconds_per_call: float = SECONDS_PER_CALL,
) -> None:
    """Check a policy on every pair and every three of `samples`; raises `LawBroken`.

    Raises ValueError for samples that prove nothing: fewer than two, or deletes, which no policy sees. The
    samples' digests are replaced by this module's own.
    """
    if len(samples) < 2:
        raise ValueError(f"a check needs two versions at least, not {len(samples)}")
    if any(sample.deleted for sample in samples):
        raise ValueError("a check needs versions that are not deleted: no policy sees those")
    named = Custom(name="checked", decide=policy)
    # Copies, so that a policy that changes what it is given does not change the caller's.
    sides = [_side(sample.version, deepcopy(dict(sample.fields))) for sample in samples]
    _check_pairs(named, sides)
    for side in sides:
        _check_idempotent(named, side)
    for three in combinations_with_replacement(sides, 3):
        _check_associative(named, *three)
    if clock is not None:
        for a, b in product(sides, repeat=2):
            _check_quick(named, a, b, clock=clock, seconds=seconds_per_call)


def candidates(examples: Sequence[Fields], *, count: int = SAMPLES, seed: int = 1) -> list[Candidate]:
    """Concurrent versions to check a policy on: `examples`, an empty body, and mixtures of the examples.

    Each is of a replica of its own. Some stamps are equal, some lie hours apart. The same arguments give the
    same versions; there are `count` of them, or more if the examples are.
    """
    if not examples:
        raise ValueError("give an example of every shape the documents have; there is none")
    draws = _draws(seed)
    bodies = [*examples, {}]
    while len(bodies) < count:
        bodies.append(_mixture(examples, draws))
    return [_side(_version(f"r{number}", draws), body) for number, body in enumerate(bodies)]


def _draws(seed: int) -> Iterator[int]:
    # Knuth's MMIX generator: the upper half of a 64-bit linear congruence. Anything deterministic would do.
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 32


def _mixture(examples: Sequence[Fields], draws: Iterator[int]) -> Fields:
    body = {}
    for name in sorted({name for example in examples for name in example}):
        source = examples[next(draws) % len(examples)]
        if name in source:
            body[name] = source[name]
    return body


def _version(origin: str, draws: Iterator[int]) -> Version:
    stamp = _START + next(draws) % 4 * _APART[next(draws) % len(_APART)]
    dot = stamp - next(draws) % 2  # a stamp is above its dot where the writer had seen a later one
    return Version({origin: dot}, stamp, origin, dot)


def _side(version: Version, fields: Fields) -> Candidate:
    # Read-only, as the fields of a real conflict are.
    return Candidate(replace(version, digest=_digest(fields)), MappingProxyType(dict(fields)))


def _digest(fields: Fields) -> bytes:
    return blake2b(repr(sort_key(fields)).encode(errors="surrogatepass"), digest_size=16).digest()


def _check_pairs(policy: Policy, sides: Sequence[Candidate]) -> None:
    pairs = list(product(range(len(sides)), repeat=2))
    answers = {(i, j): _merge(policy, sides[i], sides[j]) for i, j in pairs}
    for i, j in reversed(pairs):
        a, b = sides[i], sides[j]
        answer, again = answers[i, j], _merge(policy, a, b)
        if not _equal(answer, again):
            raise LawBroken("deterministic", _show("one pair, two answers", a, b, answer, again))
        if not _equal(answer, answers[j, i]):
            text = _show("the order of its arguments matters", a, b, answer, answers[j, i])
            raise LawBroken("commutative", text)


def _check_idempotent(policy: Policy, side: Candidate) -> None:
    copy = Candidate(side.version, deepcopy(dict(side.fields)))
    answer = _merge(policy, side, copy)
    if not _equal(answer, side):
        raise LawBroken("idempotent", _show("merged with itself, a version changes", side, copy, answer))


def _check_associative(policy: Policy, a: Candidate, b: Candidate, c: Candidate) -> None:
    left = _merge(policy, _merge(policy, a, b), c)
    for x, y, z in ((b, c, a), (a, c, b)):
        right = _merge(policy, _merge(policy, x, y), z)
        if not _equal(left, right):
            text = "it matters which two are merged first"
            raise LawBroken("associative", _show(text, a, b, left, right, c=c))


def _check_quick(policy: Policy, a: Candidate, b: Candidate, *, clock: Clock, seconds: float) -> None:
    # The best of a few calls: the machine's other work can make any call slow, but none quick.
    best = float("inf")
    for _ in range(_TIMED_CALLS_MAX):
        start = clock()
        policy(a, b)
        best = min(best, clock() - start)
        if best <= seconds:
            return
    text = f"a call takes {best:.6f} s, {seconds} s are allowed"
    raise LawBroken("quick", _show(text, a, b))


def _merge(policy: Policy, a: Candidate, b: Candidate) -> Candidate:
    """What is left of both, as the next merge will see it."""
    resolution = resolve(a, b, policy=policy)
    if resolution.failure is not None:
        text = _show(f"it fails: {resolution.failure!r}", a, b)
        raise LawBroken("total", text) from resolution.failure
    if _digest(a.fields) != a.version.digest or _digest(b.fields) != b.version.digest:
        raise LawBroken("pure", _show("it changed what it was given; shown as it is now", a, b))
    body = resolution.winner.fields if resolution.winner else resolution.fields or {}
    try:
        return _side(resolution.version, body)
    except TypeError as error:
        text = _show(f"Firestore cannot hold its answer: {error}", a, b)
        raise LawBroken("total", text) from error


def _equal(a: Candidate, b: Candidate) -> bool:
    # The digest is in the order, so this compares the bodies too.
    return a.version.order == b.version.order


def _show(text: str, a: Candidate, b: Candidate, *answers: Candidate, c: Candidate | None = None) -> str:
    lines = [text, f"  a = {_line(a)}", f"  b = {_line(b)}"]
    if c is not None:
        lines.append(f"  c = {_line(c)}")
    lines += [f"  answer: {_line(answer)}" for answer in answers]
    return "\n".join(lines)


def _line(side: Candidate) -> str:
    body = repr(dict(side.fields))
    if len(body) > _SHOWN_CHARACTERS_MAX:
        body = f"{body[:_SHOWN_CHARACTERS_MAX]}…"
    version = side.version
    return f"{body} (stamp {version.stamp}, origin {version.origin}, dot {version.dot})"
