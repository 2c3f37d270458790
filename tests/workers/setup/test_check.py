"""`firefleet check`: each finding and its remedy, judged on a made-up cloud; then on emulators."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from conflict.policies import LastWriteWins, Precedence
from conflict.resolve import OnDelete, Policy
from replication.configuration.findings import Finding, Level
from replication.configuration.parse import Configuration
from replication.configuration.resources import subscriptions, topics
from replication.configuration.soundness import diagnose_config
from replication.errors import CannotTell, FirefleetError, Transient
from replication.fleet.cloud import FoundSubscription
from replication.fleet.model import Fleet, Mode, Replica, Rule
from workers.cli import main
from workers.local.emulators import FirestoreEmulator, PubsubEmulator
from workers.setup.diagnosis import diagnose_cloud

DAY_US = 86_400 * 1_000_000
FLEET = Fleet(
    project="p",
    topic="changes",
    secret=b"0123456789abcdef",
    replicas={"eu": Replica(id="eu", project="q", database="app-eu", location="europe-west1")},
    rules=(
        Rule(match="drafts/{draft}", mode=Mode.LOCAL),
        Rule(match="carts/{cart}/items/{item}"),
        Rule(match="{document=**}"),
    ),
)
OWN = {"_repl_tombstones", "_repl_conflicts", "_repl_bodies"}


@dataclass
class MadeUpCloud:
    """A `Cloud` in which everything is as it must be, unless it is told otherwise."""

    topics: set[str] = field(default_factory=lambda: set(topics(Configuration(FLEET))))
    subscriptions: dict[str, FoundSubscription] = field(
        default_factory=lambda: {
            name: FoundSubscription(settings=wanted, ordered=False)
            for name, wanted in subscriptions(Configuration(FLEET)).items()
        }
    )
    place: str = "europe-west1"
    found_collections: Sequence[str] = ("orders", "drafts", "_repl_tombstones")
    indexed_fields: set[tuple[str, str]] = field(default_factory=set)
    asked: set[tuple[str, str]] = field(default_factory=set)
    ttl_groups: set[str] = field(default_factory=lambda: set(OWN))
    lacking: set[str] = field(default_factory=set)
    failures: dict[str, FirefleetError] = field(default_factory=dict)

    def _fail(self, call: str) -> None:
        if call in self.failures:
            raise self.failures[call]

    def has_topic(self, topic: str) -> bool:
        self._fail("has_topic")
        return topic in self.topics

    def subscription(self, name: str) -> FoundSubscription | None:
        self._fail("subscription")
        return self.subscriptions.get(name)

    def read(self, replica: Replica, path: str) -> None:
        self._fail("read")

    def location(self, replica: Replica) -> str:
        self._fail("location")
        return self.place

    def collections(self, replica: Replica) -> list[str]:
        return list(self.found_collections)

    def indexed(self, replica: Replica, group: str, name: str) -> bool:
        self.asked.add((group, name))
        return (group, name) in self.indexed_fields

    def has_ttl(self, replica: Replica, group: str, name: str) -> bool:
        assert name == "expire_at"
        return group in self.ttl_groups

    def lacking_in_project(self, project: str, permissions: Sequence[str]) -> list[str]:
        return [each for each in permissions if each in self.lacking]

    def lacking_on_topic(self, topic: str, permissions: Sequence[str]) -> list[str]:
        return [each for each in permissions if each in self.lacking]

    def lacking_on_subscription(self, name: str, permissions: Sequence[str]) -> list[str]:
        return [each for each in permissions if each in self.lacking]


def findings(cloud: MadeUpCloud, *, fleet: Fleet = FLEET) -> list[Finding]:
    # Without the warning of every fleet of one replica, as these are.
    found = [*diagnose_config(Configuration(fleet)), *diagnose_cloud(Configuration(fleet), cloud)]
    return [each for each in found if each.subject != "replicas"]


def the_finding(cloud: MadeUpCloud, *, fleet: Fleet = FLEET) -> Finding:
    """The only one that is not ok."""
    [found] = [each for each in findings(cloud, fleet=fleet) if each.level is not Level.OK]
    return found


def settings(name: str, **changes: object) -> dict[str, FoundSubscription]:
    found = MadeUpCloud().subscriptions
    wanted = found[name]
    found[name] = replace(wanted, settings=replace(wanted.settings, **changes))  # type: ignore[arg-type]
    return found


def test_where_everything_is_as_it_must_be_every_finding_is_ok() -> None:
    found = findings(MadeUpCloud())
    assert {each.level for each in found} == {Level.OK}
    assert all(not each.remedy for each in found)
    assert len(found) == 15


def test_a_missing_topic_fails() -> None:
    found = the_finding(MadeUpCloud(topics={"changes"}))
    assert found == Finding(Level.FAIL, "topic changes-dead-letters", "is missing", ("firefleet provision",))


@pytest.mark.parametrize("name", ["changes-eu", "changes-dead-letters-all"])
def test_a_missing_subscription_fails(name: str) -> None:
    cloud = MadeUpCloud()
    del cloud.subscriptions[name]
    assert the_finding(cloud) == Finding(
        Level.FAIL, f"subscription {name}", "is missing", ("firefleet provision",)
    )


def test_a_wrong_filter_fails_and_the_remedy_warns_of_the_backlog() -> None:
    found = the_finding(MadeUpCloud(subscriptions=settings("changes-eu", filter="")))
    assert found.level is Level.FAIL
    assert found.text.startswith("filter is none, not (NOT attributes:to AND")
    assert "loses the messages it holds" in found.remedy[0]
    assert "stop capture" in found.remedy[1]
    assert found.remedy[3:] == (
        "gcloud pubsub subscriptions delete changes-eu --project=p",
        "firefleet provision",
    )


@pytest.mark.parametrize(
    ("change", "level", "text", "flags"),
    [
        ({"ack_deadline": 10}, Level.WARN, "ack_deadline is 10, not 60", "--ack-deadline=60"),
        (
            {"retention": 3600},
            Level.WARN,
            "retention is 3600, not 604800",
            "--message-retention-duration=604800s",
        ),
        ({"retention": 999_999}, Level.FAIL, "retention is 999999", "--message-retention-duration=604800s"),
        (
            {"dead_letter_topic": None},
            Level.WARN,
            "dead_letter_topic is none, not changes-dead-letters",
            "--dead-letter-topic=changes-dead-letters --max-delivery-attempts=100",
        ),
        (
            {"delivery_attempts": 5},
            Level.WARN,
            "delivery_attempts is 5, not 100",
            "--dead-letter-topic=changes-dead-letters --max-delivery-attempts=100",
        ),
    ],
)
def test_a_setting_that_can_be_changed_names_the_command(
    change: dict[str, object], level: Level, text: str, flags: str
) -> None:
    found = the_finding(MadeUpCloud(subscriptions=settings("changes-eu", **change)))
    assert (found.level, found.subject) == (level, "subscription changes-eu")
    assert found.text.startswith(text)
    assert found.remedy == (f"gcloud pubsub subscriptions update changes-eu {flags} --project=p",)


def test_what_must_be_created_anew_has_no_second_remedy() -> None:
    """Right in everything once `provision` has made it again."""
    cloud = MadeUpCloud(subscriptions=settings("changes-eu", filter="", ack_deadline=10, delivery_attempts=5))
    bad = [each for each in findings(cloud) if each.level is not Level.OK]
    assert [each.text.split()[0] for each in bad] == ["filter", "ack_deadline", "delivery_attempts"]
    [remedy] = {each.remedy for each in bad}
    assert remedy[-1] == "firefleet provision"
    assert not any("subscriptions update" in command for command in remedy)


def test_a_fleet_of_one_replica_warns() -> None:
    [warning] = [each for each in diagnose_config(Configuration(FLEET)) if each.subject == "replicas"]
    assert (warning.level, warning.text) == (Level.WARN, "only one: there is nowhere to replicate to")
    other = Replica(id="us", project="q", database="app-us", location="us-central1")
    two = replace(FLEET, replicas={**FLEET.replicas, "us": other})
    assert "replicas" not in [each.subject for each in diagnose_config(Configuration(two))]


def test_durations_are_printed_as_they_are_written() -> None:
    [found] = [
        each
        for each in diagnose_config(Configuration(replace(FLEET, tombstone_retention_us=DAY_US // 24)))
        if each.subject == "tombstone_retention"
    ]
    assert found.text.startswith("1h, but events can come back for 8d (subscriptions, then Eventarc)")


def test_an_ordered_subscription_warns() -> None:
    cloud = MadeUpCloud()
    cloud.subscriptions["changes-eu"] = replace(cloud.subscriptions["changes-eu"], ordered=True)
    found = the_finding(cloud)
    assert (found.level, found.subject) == (Level.WARN, "subscription changes-eu")
    assert found.text.startswith("is ordered")


@pytest.mark.parametrize(("days", "level"), [(7, Level.FAIL), (8, Level.FAIL), (9, Level.OK), (10, Level.OK)])
def test_tombstones_must_outlive_seven_days_of_subscription_and_one_of_eventarc(
    days: int, level: Level
) -> None:
    fleet = replace(FLEET, tombstone_retention_us=days * DAY_US)
    [found] = [each for each in diagnose_config(Configuration(fleet)) if each.subject == "tombstone_retention"]
    assert found.level is level
    assert bool(found.remedy) is (level is Level.FAIL)


def test_a_database_that_does_not_answer_fails_with_the_error() -> None:
    found = the_finding(MadeUpCloud(failures={"read": Transient("replica eu: UNAVAILABLE: down")}))
    assert found == Finding(Level.FAIL, "eu database", "replica eu: UNAVAILABLE: down")


def test_pubsub_that_does_not_answer_fails_and_the_rest_is_still_looked_at() -> None:
    cloud = MadeUpCloud(
        failures={"subscription": Transient("UNAVAILABLE: down")}, ttl_groups=OWN - {"_repl_bodies"}
    )
    bad = [each for each in findings(cloud) if each.level is not Level.OK]
    assert [(each.level, each.subject) for each in bad] == [(Level.FAIL, "Pub/Sub"), (Level.WARN, "eu TTL")]


def test_what_cannot_be_asked_is_unknown_and_never_ok() -> None:
    found = the_finding(MadeUpCloud(failures={"location": CannotTell("an emulator has none")}))
    assert found == Finding(Level.UNKNOWN, "eu location", "unknown here: an emulator has none")
    found = the_finding(MadeUpCloud(failures={"location": Transient("UNAVAILABLE: down")}))
    assert found == Finding(Level.UNKNOWN, "eu location", "UNAVAILABLE: down")


@pytest.mark.parametrize(
    ("configured", "place", "level"),
    [
        ("europe-west1", "us-central1", Level.WARN),
        ("us-central1", "nam5", Level.OK),
        ("nam5", "nam5", Level.OK),
        ("europe-west1", "eur3", Level.WARN),
    ],
)
def test_a_location_is_the_databases_or_the_region_that_serves_it(
    configured: str, place: str, level: Level
) -> None:
    fleet = replace(FLEET, replicas={"eu": replace(FLEET.replicas["eu"], location=configured)})
    [found] = [
        each for each in findings(MadeUpCloud(place=place), fleet=fleet) if each.subject == "eu location"
    ]
    assert found.level is level


def test_what_grows_must_be_exempt_in_every_replicated_collection_group() -> None:
    """Those the rules spell out, those at the database's top, and this system's own; none that is local."""
    cloud = MadeUpCloud(indexed_fields={("orders", "_repl"), ("items", "_repl"), ("_repl_bodies", "body")})
    found = the_finding(cloud)
    assert cloud.asked == {
        ("orders", "_repl"),
        ("items", "_repl"),
        ("_repl_tombstones", "_repl"),
        ("_repl_tombstones", "expire_at"),
        ("_repl_conflicts", "versions"),
        ("_repl_conflicts", "expire_at"),
        ("_repl_bodies", "body"),
        ("_repl_bodies", "document"),
        ("_repl_bodies", "expire_at"),
    }
    assert (found.level, found.subject) == (Level.WARN, "eu indexes")
    assert found.text.endswith(", by items._repl, orders._repl, _repl_bodies.body")
    assert found.remedy[1] == (
        "gcloud firestore indexes fields update _repl --collection-group=orders --disable-indexes "
        "--database=app-eu --project=q"
    )


def test_tombstones_and_conflicts_must_expire() -> None:
    found = the_finding(MadeUpCloud(ttl_groups=OWN - {"_repl_conflicts"}))
    assert found.text == "off for _repl_conflicts: they grow forever"
    assert found.remedy == (
        "gcloud firestore fields ttls update expire_at --collection-group=_repl_conflicts --enable-ttl "
        "--database=app-eu --project=q",
    )


@pytest.mark.parametrize(
    ("permission", "subjects", "role"),
    [
        (
            "pubsub.topics.publish",
            ["topic changes roles", "topic changes-dead-letters roles"],
            "roles/pubsub.publisher",
        ),
        (
            "pubsub.subscriptions.consume",
            ["subscription changes-eu roles", "subscription changes-dead-letters-all roles"],
            "roles/pubsub.subscriber",
        ),
        ("datastore.entities.delete", ["q roles"], "roles/datastore.user"),
    ],
)
def test_a_permission_that_is_lacking_fails_and_names_the_role(
    permission: str, subjects: list[str], role: str
) -> None:
    bad = [each for each in findings(MadeUpCloud(lacking={permission})) if each.level is not Level.OK]
    assert [each.subject for each in bad] == subjects
    assert all(each.level is Level.FAIL and permission in each.text and role in each.remedy[0] for each in bad)


CONFIG = """\
project: {project}
topic: changes
tombstone_retention: {retention}
pubsub_emulator_host: {pubsub}
replicas:
  eu: {{database: app-eu, location: europe-west1, emulator_host: "{firestore}"}}
collections:
  - {{match: "{{document=**}}", mode: multi-primary}}
"""


def write_config(folder: Path, *, project: str = "my-project", retention: str = "10d", **hosts: str) -> Path:
    path = folder / "fleet.yaml"
    hosts = {"pubsub": "127.0.0.1:1", "firestore": "127.0.0.1:1"} | hosts
    path.write_text(CONFIG.format(project=project, retention=retention, **hosts))
    return path


def run(config: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), command, *arguments])


def test_the_schema_is_printed_without_any_configuration(tmp_path: Path) -> None:
    result = run(tmp_path / "absent.yaml", "check", "--schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"]["replicas"]


def test_offline_asks_nobody_and_a_short_retention_exits_1(tmp_path: Path) -> None:
    assert run(write_config(tmp_path), "check", "--offline").exit_code == 0
    result = run(write_config(tmp_path, retention="7d"), "check", "--offline", "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert [each["subject"] for each in answer["findings"] if each["level"] == "fail"] == [
        "tombstone_retention"
    ]


@pytest.mark.emulator
def test_it_finds_what_provision_then_creates(
    tmp_path: Path, project: str, firestore_emulator: FirestoreEmulator, pubsub_emulator: PubsubEmulator
) -> None:
    config = write_config(
        tmp_path, project=project, pubsub=pubsub_emulator.host, firestore=firestore_emulator.host
    )
    before = run(config, "check", "--json")
    missing = [each for each in json.loads(before.stdout)["findings"] if each["level"] == "fail"]
    assert before.exit_code == 1
    assert [each["subject"].split()[0] for each in missing] == ["topic"] * 2 + ["subscription"] * 2
    assert {tuple(each["remedy"]) for each in missing} == {("firefleet provision",)}
    assert run(config, "provision").exit_code == 0
    after = run(config, "check", "--json")
    assert after.exit_code == 0, after.stdout
    levels = {each["subject"]: each["level"] for each in json.loads(after.stdout)["findings"]}
    assert levels["subscription changes-eu"] == levels["eu database"] == "ok"
    # An emulator has no notion of these, and must not be taken for one that has them right.
    assert {levels[name] for name in ("eu indexes", "eu TTL", "eu location", f"{project} roles")} == {"unknown"}


@pytest.mark.emulator
def test_a_replica_that_does_not_answer_fails_by_name(
    tmp_path: Path, project: str, pubsub_emulator: PubsubEmulator
) -> None:
    config = write_config(tmp_path, project=project, pubsub=pubsub_emulator.host)
    result = run(config, "check", "--json")
    assert result.exit_code == 1
    [found] = [each for each in json.loads(result.stdout)["findings"] if each["subject"] == "eu database"]
    assert found["level"] == "fail"
    assert "replica eu" in found["text"]


def test_where_nothing_answers_it_says_so_at_once_instead_of_trying_for_minutes(tmp_path: Path) -> None:
    result = run(write_config(tmp_path), "check", "--json")
    assert result.exit_code == 1
    failed = [each for each in json.loads(result.stdout)["findings"] if each["level"] == "fail"]
    assert [each["subject"] for each in failed] == ["Pub/Sub", "eu database"]
    assert all("127.0.0.1:1" in each["text"] for each in failed)


@pytest.mark.parametrize(
    ("on_delete", "policy", "warned"),
    [
        (OnDelete.LWW, Precedence("status", ["a"]), True),
        (OnDelete.DELETE_WINS, Precedence("status", ["a"]), False),
        (OnDelete.LWW, LastWriteWins(), False),
    ],
    ids=["precedence and lww", "precedence and delete-wins", "last-write-wins"],
)
def test_a_policy_that_deletes_make_unlawful_is_warned_of(
    on_delete: OnDelete, policy: Policy, warned: bool
) -> None:
    rule = Rule(match="{document=**}", policy=policy, on_delete=on_delete)
    found = diagnose_config(Configuration(replace(FLEET, rules=(rule,))))
    levels = [each.level for each in found if each.subject == "collections: {document=**}"]
    assert levels == [Level.WARN] * warned
