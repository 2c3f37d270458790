"""Words for people: numbers with their nouns."""


def counted(number: int, noun: str) -> str:
    """`1 replica`, `2 replicas`, `1,000 changes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
