"""Replication between Firestore databases: what happens to a change, decided without any I/O.

Rules: everything here is pure (values in, values or effects out) except `adapters`, one module for each
backend. Dependencies point one way, `workers` to `replication` to `conflict`; inside, from the folders that
know most (`simulation`, `apply`) down to those that know least (`fleet`, `documents`). Import contracts check
both.
"""
