"""Analytics events: checked, deduplicated, throttled and packed, purely.

    message ── intake ──> AnalyticsEvent ── Buffer ──> HeldEvent ── flush ──> documents ── reader ──> events
               schema                       throttle, dedupe        packing                packing
                                                                    └── anonymise ──> the warehouse's copy

No clock, thread, client or environment here: times and keys are arguments. Intake and flush are generators of
effects (`effects`); `workers.analytics` performs them.
"""
