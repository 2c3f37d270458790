"""What capture refuses, and that it has an answer of the contract to everything."""

import base64
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.capturing import Served, in_memory


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


class TestWhatIsRefused:
    @pytest.mark.parametrize("missing", ["ce-id", "ce-type", "ce-time"])
    def test_without_its_attributes_an_event_is_400(self, served: Served, missing: str) -> None:
        change = served.of_write()
        answer = served.request(body=change.body, headers=without(change.headers, missing))
        assert answer.status == 400
        assert missing in answer.problem["detail"]
        assert answer.problem["reason"] == "missing_attribute"
        assert answer.problem["remedy"]

    @pytest.mark.parametrize(
        "body",
        [
            b"\x0a",
            b"\x0a\xff\xff\xff",
            b"garbage !!",
            b"Z2FyYmFnZQ==",
            b"CgA",
            base64.b64encode(b"\x0a\x02")[:-1],
            b"\x0a\x00",
        ],
    )
    def test_a_malformed_body_is_400(self, served: Served, body: bytes) -> None:
        answer = served.deliver(served.of_write(), body=body)
        assert answer.status == 400
        assert answer.problem["detail"]
        assert answer.problem["remedy"]
        assert served.messages() == []

    def test_every_truncation_of_an_event_is_400_or_another_whole_event(self, served: Served) -> None:
        """A cut may fall between two fields, and what is left parse; it must never be a 5xx."""
        change = served.of_write()
        cuts = range(0, len(change.body), 3)
        assert {served.deliver(change, body=change.body[:cut]).status for cut in cuts} <= {204, 400}

    @pytest.mark.parametrize("body", [b"{", b"[1]", b'{"value": 3}', b'{"other": {}}', b"\xff\xfe", b"null"])
    def test_malformed_json_is_400(self, served: Served, body: bytes) -> None:
        answer = served.deliver(served.of_write(), body=body, content_type="application/json")
        assert answer.status == 400
        assert served.messages() == []

    def test_a_database_that_is_no_replica_is_400_and_named(self, served: Served) -> None:
        change = served.of_write()
        answer = served.deliver(change, body=change.body.replace(b"app-eu", b"app-xx"))
        assert (answer.status, answer.problem["reason"]) == (400, "unknown_replica")
        assert "app-xx" in answer.problem["detail"]

    def test_another_services_event_is_400(self, served: Served) -> None:
        answer = served.deliver(served.of_write(), ce_type="google.cloud.storage.object.v1.finalized")
        assert (answer.status, answer.problem["reason"]) == (400, "unknown_kind")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_another_method_is_405(self, served: Served, method: str) -> None:
        answer = served.request(method, "/events")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert answer.problem["remedy"]

    def test_refusals_are_counted_by_status(self, served: Served) -> None:
        served.deliver(served.of_write(), body=b"\x0a")
        served.deliver(served.of_write())
        assert served.ledger.of("firefleet.capture.requests", status="400") == 1
        assert served.ledger.of("firefleet.capture.requests", status="204") == 1
        assert served.ledger.measured["firefleet.capture.duration"] == 2


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Served]:
    served, server = in_memory()
    served.of_delete()
    served.of_write("a/b/c/d", replica="us")
    yield served
    server.stop()


class TestFuzz:
    """Whatever comes over HTTP, the answer is one of the contract's; a 500 would be a bug."""

    ALLOWED = frozenset({204, 400, 413, 503})

    @settings(max_examples=300)
    @given(data=st.data())
    def test_a_mutilated_event_never_gives_500(self, fuzzed: Served, data: st.DataObject) -> None:
        change = fuzzed.changes[data.draw(st.integers(0, len(fuzzed.changes) - 1))]
        body = bytearray(data.draw(st.sampled_from([change.body, base64.b64encode(change.body)])))
        for _ in range(data.draw(st.integers(0, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(body)))
        headers = dict(change.headers)
        for name in data.draw(st.lists(st.sampled_from(sorted(headers)), max_size=3)):
            headers[name] = data.draw(HEADER_VALUES)
        assert fuzzed.request(body=bytes(body[cut:] or body), headers=headers).status in self.ALLOWED

    @settings(max_examples=200)
    @given(
        body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | st.just(b"[" * 10_000),
        names=st.lists(
            st.sampled_from(["ce-id", "ce-type", "ce-time", "content-type", "ce-x", "traceparent"]), unique=True
        ),
        data=st.data(),
    )
    def test_anything_at_all_never_gives_500(
        self, fuzzed: Served, body: bytes, names: list[str], data: st.DataObject
    ) -> None:
        usual = {**fuzzed.changes[0].headers, "content-type": "application/json"}
        headers = usual | {name: data.draw(HEADER_VALUES) for name in names}
        assert fuzzed.request(body=body, headers=headers).status in self.ALLOWED


# What a client can put on the wire: no control characters, bytes above 127 as latin-1.
HEADER_VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
)
