"""Versions, conflicts and how they are resolved: pure values in, pure values out.

`clock` and `version` say what a state of a document has seen, `reconcile` compares two histories, `resolve`
resolves a conflict by one of the `policies`, over the plain `values` of Firestore; `laws` checks policies.
"""

from conflict.policies import Custom, FieldRules, LastWriteWins, Precedence
from conflict.reconcile import Relation, reconcile
from conflict.resolve import Candidate, Fields, OnDelete, Policy, Resolution, resolve
from conflict.values import GeoPoint, Reference, sort_key
from conflict.version import Version

__all__ = [
    "Candidate",
    "Custom",
    "FieldRules",
    "Fields",
    "GeoPoint",
    "LastWriteWins",
    "OnDelete",
    "Policy",
    "Precedence",
    "Reference",
    "Relation",
    "Resolution",
    "Version",
    "reconcile",
    "resolve",
    "sort_key",
]
