"""A right configuration, and each mistake that can be made in it: (what to replace, by what, the message)."""
# ruff: noqa: E501 - a message that is expected stands in one line, as it is printed

GOOD = """\
project: my-project
topic: firestore-replication
metadata_field: _repl
replicas:
  eu:   {database: app-eu,   location: europe-west1}
  us:   {database: app-us,   location: us-central1, project: other-project}
  apac: {database: app-apac, location: asia-south1, emulator_host: "127.0.0.1:8083"}
collections:
  - match: "marketplace_orders/{order}"
    mode: multi-primary
    conflict: {policy: precedence, field: status, order: [pending, approved, rejected, refunded]}
    lag_target: 5s
  - match: "walletTransactions/{id}"
    mode: single-primary
    primary: eu
  - match: "{document=**}"
    mode: multi-primary
"""

MISTAKES = [
    ("topic:", "topik:", "fleet.yaml:2: topik: unknown key 'topik'; did you mean 'topic'? known: project, topic,"),
    ("topic: firestore-replication\n", "", "fleet.yaml:1: topic: is missing; add it: The Pub/Sub topic"),
    ("primary: eu", "primry: eu", "fleet.yaml:15: collections.1.primry: unknown key 'primry'; did you mean 'primary'?"),
    ("field: status", "feld: status", "fleet.yaml:11: collections.0.conflict.feld: unknown key 'feld'; did you mean 'field'?"),
    ("field: status, ", "", "fleet.yaml:11: collections.0.conflict.field: is missing; add it: The field that holds"),
    (",   location: europe-west1", "", "fleet.yaml:5: replicas.eu.location: is missing; add it: Where the database is"),
    ("  us: ", "  eu: ", "fleet.yaml:6: replicas.eu: stands here a second time, first in line 5; keep one of the two"),
    ("metadata_field", "topic", "fleet.yaml:3: topic: stands here a second time, first in line 2;"),
    ("  us: ", "  no: ", "fleet.yaml:6: replicas.no: this key is not read as text; put it in quotes"),
    ("  us: ", "  US: ", "fleet.yaml:6: replicas.US: 'US' cannot be used here; a replica's id is part of"),
    ("  us: ", "  " + "u" * 31 + ": ", "at most 30 of a-z, 0-9 and '-', a letter first"),
    ("other-project", "my project", "fleet.yaml:6: replicas.us.project: 'my project' cannot be used here; write the"),
    ("app-eu", "app/eu", "fleet.yaml:5: replicas.eu.database: 'app/eu' cannot be used here; write a Firestore"),
    ("app-eu", "5", "fleet.yaml:5: replicas.eu.database: 5 is not text; put it in quotes"),
    ('"127.0.0.1:8083"', "localhost", 'fleet.yaml:7: replicas.apac.emulator_host: \'localhost\' cannot be used here; write "host:port"'),
    ("app-apac", "app-eu", "fleet.yaml:7: replicas.apac.database: 'app-eu' of project 'my-project' is replica 'eu' already; give each"),
    ("topic: firestore-replication", "topic: projects/p/topics/t", "fleet.yaml:2: topic: 'projects/p/topics/t' cannot be used here; write the topic's id alone"),
    ("topic: firestore-replication", "topic: goog-x", "fleet.yaml:2: topic: 'goog-x' cannot be used here"),
    ("policy: precedence", "policy: precedense", "fleet.yaml:11: collections.0.conflict.policy: unknown policy 'precedense'; did you mean 'precedence'? known: last-write-wins, precedence, field-rules, custom: package.module:function"),
    ("policy: precedence, ", "", "fleet.yaml:11: collections.0.conflict: names no policy; write {policy: last-write-wins} or another of"),
    ("{policy: precedence, field: status, order: [pending, approved, rejected, refunded]}", "precedence", "fleet.yaml:11: collections.0.conflict: names no policy;"),
    ("precedence, field: status, order: [pending, approved, rejected, refunded]", '"custom: nonsense"', "names no function; write \"custom: package.module:function\""),
    ("precedence, field: status, order: [pending, approved, rejected, refunded]", "field-rules, fields: {a: maxx}", "fleet.yaml:11: collections.0.conflict.fields.a: 'maxx' is none of the choices; write 'max', 'min', 'union' or 'lww'"),
    ("precedence, field: status, order: [pending, approved, rejected, refunded]", "field-rules, fields: {}", "fleet.yaml:11: collections.0.conflict.fields: is empty; write at least one:"),
    ("precedence, field: status, order: [pending, approved, rejected, refunded]", "field-rules, fields: {a.b: max}", "is inside a map; name the top-level field 'a'"),
    ("[pending, approved,", "[pending, yes,", "fleet.yaml:11: collections.0.conflict.order.1: YAML reads this as true, as it does yes, no, on and off; put the word in quotes"),
    ("[pending, approved,", "[pending, pending,", "names a state twice"),
    ("mode: single-primary", "mode: primary", "fleet.yaml:14: collections.1.mode: 'primary' is none of the choices; write 'multi-primary', 'single-primary' or 'local'"),
    ("    primary: eu\n", "", "fleet.yaml:13: collections.1.primary: is missing; name the replica that takes the writes: eu, us, apac"),
    ("primary: eu", "primary: de", "fleet.yaml:15: collections.1.primary: 'de' is not a replica; choose one of eu, us, apac"),
    ("lag_target: 5s", "primary: eu", "fleet.yaml:12: collections.0.primary: means nothing for multi-primary; remove it, or write mode: single-primary"),
    ("primary: eu", "primary: eu\n    on_delete: lww", "fleet.yaml:16: collections.1.on_delete: means nothing for single-primary; remove it, or write mode: multi-primary"),
    ("mode: single-primary\n    primary: eu", "mode: local\n    lag_target: 5s", "fleet.yaml:15: collections.1.lag_target: means nothing for local;"),
    ("lag_target: 5s", "lag_target: 5", "fleet.yaml:12: collections.0.lag_target: 5 is not a duration; write a whole number with s, m, h or d: 5s or 10d"),
    ("lag_target: 5s", "lag_target: 0s", "'0s' is not a duration"),
    ("lag_target: 5s", "lag_target: 1.5h", "'1.5h' is not a duration"),
    ("lag_target: 5s", "lag_target: 4000d", "4000d is longer than ten years; write at most 3650d"),
    ("metadata_field: _repl", "metadata_field: __repl__", "fleet.yaml:3: metadata_field: '__repl__' is reserved by Firestore; choose a name such as _repl"),
    ("metadata_field: _repl", "metadata_field: a.b", "fleet.yaml:3: metadata_field: 'a.b' cannot be used here; write letters, digits and '_'"),
    ("metadata_field: _repl", "secret_file: missing.key", "fleet.yaml:3: secret_file: cannot read 'missing.key' (No such file or directory); write one with: openssl rand -hex 32"),
    ("metadata_field: _repl", "pull: {threads: 0}", "fleet.yaml:3: pull.threads: 0: input should be greater than or equal to 1;"),
    ("metadata_field: _repl", "pull: {thread: 1}", "fleet.yaml:3: pull.thread: unknown key 'thread'; did you mean 'threads'? known: threads, max_messages"),
    ("metadata_field: _repl", "expirations: never", "fleet.yaml:3: expirations: 'never' is none of the choices; write 'local' or 'replicate'"),
    ("metadata_field: _repl", "dead_letter_topic: firestore-replication", "fleet.yaml:3: dead_letter_topic: is the topic itself; name another"),
    ("walletTransactions/{id}", "walletTransactions", "fleet.yaml:13: collections.1.match: 'walletTransactions' is a collection, not its documents; write 'walletTransactions/{document}'"),
    ("walletTransactions/{id}", "a/{b", "fleet.yaml:13: collections.1.match: '{b' in 'a/{b' is not a segment;"),
    ("walletTransactions/{id}", "{a=**}/b", "'{a=**}' is not at the end of '{a=**}/b'"),
    ('"walletTransactions/{id}"', "5", "fleet.yaml:13: collections.1.match: 5 is not a pattern;"),
    ("walletTransactions/{id}", "marketplace_orders/{other}", "fleet.yaml:13: collections.1.match: 'marketplace_orders/{other}' never matches, because collections.0 ('marketplace_orders/{order}') comes first and matches all of it; move this rule above that one, or remove it"),
    ("marketplace_orders/{order}", "{all=**}", "fleet.yaml:13: collections.1.match: 'walletTransactions/{id}' never matches, because collections.0 ('{all=**}') comes first"),
    ("{document=**}", "carts/{rest=**}", 'fleet.yaml:16: collections.2.match: the last rule does not match every document; add one after it: {match: "{document=**}", mode: local}'),
    ("topic: firestore-replication", "topic:", "fleet.yaml:2: topic: is empty; write a value: The Pub/Sub topic"),
    ("primary: eu", "primary: no", "fleet.yaml:15: collections.1.primary: YAML reads this as false, as it does yes, no, on and off"),
    ("mode: single-primary", "mode:", "fleet.yaml:14: collections.1.mode: is empty; write a value: multi-primary: every replica"),
    ("lag_target: 5s", "match:", "stands here a second time"),
    ('"127.0.0.1:8083"', '"127.0.0.1:99999"', "fleet.yaml:7: replicas.apac.emulator_host: '127.0.0.1:99999' cannot be used here"),
    ("metadata_field: _repl", "metadata_field:", "fleet.yaml:3: metadata_field: is empty"),
    ("metadata_field: _repl", "pull: {threads: yes}", "fleet.yaml:3: pull.threads: YAML reads this as true"),
    ("{database: app-eu,   location: europe-west1}", "", "fleet.yaml:5: replicas.eu: is empty; write a value: Each replica's id"),
    ("metadata_field: _repl", "topicc: " + "x" * 1000, "fleet.yaml:3: topicc: unknown key 'topicc'; did you mean 'topic'?"),
    ("topic: firestore-replication", "topic: [" + "1, " * 1000 + "]", "fleet.yaml:2: topic: [1, 1, 1, 1, 1, 1, ...] is not text"),
]  # fmt: skip
