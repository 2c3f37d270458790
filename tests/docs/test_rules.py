"""The security rules of docs/applications.md, tried on the emulator as a signed-in client and as firefleet."""

import base64
import json
import uuid
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.docs.pages import BLOCKS
from workers.local.emulators import FirestoreEmulator

pytestmark = pytest.mark.emulator

OK, DENIED = 200, 403
[RULES] = [block.text for block in BLOCKS if block.title == "firestore.rules"]
NAIVE, COMPARING = [
    block.text for block in BLOCKS if block.text.startswith("allow update:") and "hasOnly" in block.text
]
REPL = {"mapValue": {"fields": {"stamp": {"integerValue": "1"}}}}


class Documents:
    """One database behind security rules, over REST, which rules apply to as to every client."""

    def __init__(self, emulator: FirestoreEmulator, rules: str) -> None:
        self._host = emulator.host
        self._project = f"rules-{uuid.uuid4().hex[:8]}"
        body = {"rules": {"files": [{"name": "firestore.rules", "content": rules}]}}
        answer = self._request("PUT", f"/emulator/v1/projects/{self._project}:securityRules", body, "owner")
        assert answer == OK

    def replicated(self, path: str, **fields: Any) -> None:
        """A document as firefleet leaves it."""
        assert self._write(path, {**fields, "_repl": REPL}, [], "owner") == OK

    def update(self, path: str, **fields: Any) -> int:
        """A signed-in client's `update()` of some fields; the status."""
        return self._write(path, fields, sorted(fields), signed_in())

    def set(self, path: str, **fields: Any) -> int:
        """A signed-in client's whole `set()`; the status."""
        return self._write(path, fields, [], signed_in())

    def get(self, path: str) -> int:
        """A signed-in client's read; the status."""
        return self._request("GET", self._name(path), None, signed_in())

    def _name(self, path: str) -> str:
        return f"/v1/projects/{self._project}/databases/(default)/documents/{path}"

    def _write(self, path: str, fields: dict[str, Any], mask: list[str], token: str) -> int:
        query = "&".join(f"updateMask.fieldPaths={name}" for name in mask)
        return self._request("PATCH", f"{self._name(path)}?{query}", {"fields": fields}, token)

    def _request(self, method: str, path: str, body: Any, token: str) -> int:
        connection = HTTPConnection(self._host, timeout=60)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        status = connection.getresponse().status
        connection.close()
        return status


def signed_in() -> str:
    """A token as the emulator takes it: unsigned."""
    parts = [{"alg": "none"}, {"sub": "ann", "user_id": "ann"}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts) + "."


def text(value: str) -> dict[str, str]:
    return {"stringValue": value}


def people(rule: str) -> str:
    """Whole rules with one line of the page in them."""
    return (
        "rules_version = '2';\nservice cloud.firestore {\n"
        f"  match /databases/{{database}}/documents {{\n    match /people/{{person}} {{ {rule} }}\n  }}\n}}\n"
    )


def test_clients_may_update_replicated_documents_but_not_their_metadata(
    firestore_emulator: FirestoreEmulator,
) -> None:
    documents = Documents(firestore_emulator, RULES)
    documents.replicated("orders/o1", status=text("pending"))
    assert documents.update("orders/o1", status=text("paid")) == OK
    assert documents.update("orders/o1", _repl=text("forged")) == DENIED
    assert documents.set("orders/o1", status=text("paid")) == DENIED  # it would remove `_repl`
    assert documents.set("orders/o2", status=text("pending")) == OK
    assert documents.set("orders/o3", status=text("pending"), _repl=REPL) == DENIED


def test_clients_may_not_read_what_firefleet_keeps(firestore_emulator: FirestoreEmulator) -> None:
    documents = Documents(firestore_emulator, RULES)
    for path in (
        "orders/o1",
        "_repl_conflicts/c1",
        "_repl_conflicts/c1/_repl_bodies/v1",
        "_repl_tombstones/t1",
    ):
        documents.replicated(path, status=text("pending"))
    assert documents.get("orders/o1") == OK
    assert documents.get("_repl_conflicts/c1") == DENIED
    assert documents.get("_repl_conflicts/c1/_repl_bodies/v1") == DENIED
    assert documents.get("_repl_tombstones/t1") == DENIED


@pytest.mark.parametrize(("rule", "status"), [(NAIVE, DENIED), (COMPARING, OK)])
def test_has_only_of_all_keys_denies_what_has_only_of_the_affected_keys_allows(
    firestore_emulator: FirestoreEmulator, rule: str, status: int
) -> None:
    documents = Documents(firestore_emulator, people(rule))
    documents.replicated("people/p1", name=text("Ann"), age=text("7"))
    assert documents.update("people/p1", age=text("8")) == status
    assert documents.update("people/p1", _repl=text("forged")) == DENIED
