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
    associative    it does not matter which two of three are merged first, or that one is merged again
    quick          a call takes no longer than allowed; checked only with a timer: `timer=time.perf_counter`

What is compared is what `resolve` makes of an answer: the body and its place in the total order. So a policy
is caught that gives the right body with the wrong side's stamp, which goes wrong at the next merge. A check is
not a proof: give an example of every shape that the documents have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from hashlib import blake2b
from itertools import combinations_with_replacement, product
from types import MappingProxyType

from conflict.policies import Custom
from conflict.resolve import Candidate, Fields, Policy, resolve
from conflict.values import sort_key
from conflict.version import Version

Decide = Callable[[Candidate, Candidate], Candidate | Fields]
"""A policy, or a plain function that is to become one."""

_Merged = Mapping[tuple[int, int], Candidate]

Timer = Callable[[], float]
"""Seconds from any start, never going back."""

SAMPLES = 20
SECONDS_PER_CALL = 0.001

_TIMED_CALLS_MAX = 5
_SHOWN_CHARACTERS_MAX = 400
_START = 1_700_000_000_000_000
# A policy that treats "nearly at once" as equal is not associative: some b is near a and near c, which are not
# near each other. Stamps of 0, 2**n and 2**(n + 1) hold such three for one window of every two-fold range;
# these windows reach from a second to nine minutes.
_APART = tuple(2**n for n in range(20, 30))


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
    timer: Timer | None = None,
    seconds_per_call: float = SECONDS_PER_CALL,
) -> None:
    """Check a policy on versions made of `examples`, whole bodies; raises `LawBroken`.

    Another `seed` makes other versions. They are checked in groups with their stamps ever further apart, of
    `samples` each; the work grows with the third power of that.
    """
    for group, apart in enumerate(_APART):
        versions = candidates(examples, count=samples, seed=seed + group, apart=apart)
        check(policy, versions, timer=timer, seconds_per_call=seconds_per_call)


def check(
    policy: Decide,
    samples: Sequence[Candidate],
    *,
    timer: Timer | None = None,
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
    merged = _check_pairs(named, sides)
    for side in sides:
        _check_idempotent(named, side)
    for three in combinations_with_replacement(range(len(sides)), 3):
        _check_associative(named, sides, merged, three)
    if timer is not None:
        for a, b in product(sides, repeat=2):
            _check_quick(named, a, b, timer=timer, seconds=seconds_per_call)


def candidates(
    examples: Sequence[Fields], *, count: int = SAMPLES, seed: int = 1, apart: int = _APART[0]
) -> list[Candidate]:
    """Concurrent versions to check a policy on: `examples`, an empty body, and mixtures of the examples.

    Each belongs to a different replica; its stamp is one of three, `apart` microseconds from each other.
    The same arguments give the same versions; there are `count` of them, or more if the examples are.
    """
    if not examples:
        raise ValueError("no examples; give one of every shape that the documents have")
    draws = _draws(seed)
    bodies = [*examples, {}]
    while len(bodies) < count:
        bodies.append(_mixture(examples, draws))
    turn = next(draws)
    return [
        _side(_version(number, _START + (turn + number) % 3 * apart), body)
        for number, body in enumerate(bodies)
    ]


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


def _version(number: int, stamp: int) -> Version:
    origin = f"r{number}"
    dot = stamp - number % 2  # a stamp is above its dot where the writer had seen a later one
    return Version({origin: dot}, stamp, origin, dot)


def _side(version: Version, fields: Fields) -> Candidate:
    # Read-only, as the fields of a real conflict are.
    return Candidate(version._replace(digest=_digest(fields)), MappingProxyType(dict(fields)))


def _digest(fields: Fields) -> bytes:
    return blake2b(repr(sort_key(fields)).encode(errors="surrogatepass"), digest_size=16).digest()


def _check_pairs(policy: Policy, sides: Sequence[Candidate]) -> _Merged:
    pairs = list(product(range(len(sides)), repeat=2))
    answers = {(i, j): _merge(policy, sides[i], sides[j]) for i, j in pairs}
    for i, j in reversed(pairs):
        a, b = sides[i], sides[j]
        if a.version.digest != _digest(a.fields):
            raise LawBroken("pure", f"it changes its arguments: {_line(a)}")
        answer, again = answers[i, j], _merge(policy, a, b)
        if not _equal(answer, again):
            raise LawBroken("deterministic", _show("the same pair, two different answers", a, b, answer, again))
    for i, j in pairs:
        a, b, answer = sides[i], sides[j], answers[i, j]
        if not _equal(answer, answers[j, i]):
            text = _show("the order of its arguments matters", a, b, answer, answers[j, i])
            raise LawBroken("commutative", text)
    return answers


def _check_idempotent(policy: Policy, side: Candidate) -> None:
    copy = Candidate(side.version, deepcopy(dict(side.fields)))
    answer = _merge(policy, side, copy)
    if not _equal(answer, side):
        raise LawBroken("idempotent", _show("merging a version with itself changes it", side, copy, answer))


def _check_associative(
    policy: Policy, sides: Sequence[Candidate], merged: _Merged, three: tuple[int, int, int]
) -> None:
    i, j, k = three
    left, *others = (_merge(policy, merged[x, y], sides[z]) for x, y, z in ((i, j, k), (j, k, i), (i, k, j)))
    for other in others:
        if not _equal(left, other):
            text = "the result depends on which two are merged first"
            raise LawBroken("associative", _show(text, sides[i], sides[j], left, other, c=sides[k]))


def _check_quick(policy: Policy, a: Candidate, b: Candidate, *, timer: Timer, seconds: float) -> None:
    # The best of a few calls: the machine's other work can make any call slow, but none quick.
    best = float("inf")
    for _ in range(_TIMED_CALLS_MAX):
        start = timer()
        policy(a, b)
        best = min(best, timer() - start)
        if best <= seconds:
            return
    text = f"a call takes {best:.6f} s; at most {seconds} s are allowed"
    raise LawBroken("quick", _show(text, a, b))


def _merge(policy: Policy, a: Candidate, b: Candidate) -> Candidate:
    """What is left of both, as the next merge will see it."""
    resolution = resolve(a, b, policy=policy)
    if resolution.failure is not None:
        text = _show(f"it fails: {resolution.failure!r}", a, b)
        raise LawBroken("total", text) from resolution.failure
    if resolution.winner is not None:
        return Candidate(resolution.version, resolution.winner.fields)
    try:
        return _side(resolution.version, resolution.fields or {})
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
