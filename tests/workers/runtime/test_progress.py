"""A worker's health is its progress: a silent loop is stuck, held messages without an outcome are stalled."""

from workers.runtime.progress import HEARTBEAT_S_MAX, STALLED_S_MAX, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_stops_moving_is_named() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.beat("puller-1")
    progress.beat("puller-2")
    clock.now += HEARTBEAT_S_MAX - 1
    progress.beat("puller-2")
    assert progress.stuck() is None
    clock.now += 2
    assert "puller-1 has not moved for 91 s" in (progress.stuck() or "")


def test_messages_held_without_an_outcome_are_a_stall() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.hold("puller-1", 10, 5)
    clock.now += STALLED_S_MAX + 1
    assert "10 messages held and none finished" in (progress.stalled() or "")
    progress.finished("puller-1", 4)
    assert progress.stalled() is None
    clock.now += STALLED_S_MAX + 1
    assert "6 messages" in (progress.stalled() or "")


def test_an_idle_worker_is_not_stalled_however_long() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 10 * STALLED_S_MAX
    assert progress.stalled() is None
    progress.hold("puller-1", 3, 5)
    assert progress.stalled() is None, "it has only just got them"
    progress.hold("puller-1", 0, 0)
    clock.now += 10 * STALLED_S_MAX
    assert progress.stalled() is None


def test_the_oldest_message_held_is_the_oldest_of_all_pullers() -> None:
    progress = Progress(Clock())
    assert progress.oldest_us is None
    progress.hold("puller-1", 1, 50)
    progress.hold("puller-2", 1, 40)
    assert progress.oldest_us == 40
    progress.hold("puller-2", 0, 0)
    assert progress.oldest_us == 50


def test_trouble_is_told_until_it_is_over() -> None:
    progress = Progress(Clock())
    progress.trouble("puller-1", "eu", "eu is down")
    progress.trouble("puller-2", "eu", "eu is down")
    progress.trouble("puller-1", "eu", None)
    assert progress.unreachable() == "eu is down"
    progress.trouble("puller-2", "eu", None)
    assert progress.unreachable() is None
