"""Analytics events: checked, deduplicated, throttled and packed, purely.

    message ── schema ──> Event ── Buffer ──> Held ── units ──> documents ── reader ──> events
               config              throttle, dedupe   packing                packing
                                                 └── anonymise ──> the warehouse's copy

No clock, thread, client or environment here: times and keys are arguments, and what a flush does with its
documents is `workers.analytics.flush`.
"""
