"""A command line as it was typed, and as it goes to a cluster: without some options, with another word in its place."""

from __future__ import annotations

from collections.abc import Sequence


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options and their values.

    Args:
        words: of it.
        options: long ones, each of which takes a value.
    """
    kept: list[str] = []
    value = False
    for word in words:
        named = word.partition("=")[0]
        # as the command line takes it: the beginning of a name is enough where no other begins so
        ours = len(named) > len("--") and any(option.startswith(named) for option in options)
        if value or ours:
            value = not value and "=" not in word
        else:
            kept.append(word)
    return kept


def replaced(words: Sequence[str], old: str, new: str) -> list[str]:
    """A command line with another word in place of one that is no option's value.

    Args:
        words: of it.
        old: which stands there at least once.
        new: in its place.
    """
    there = [place for place, word in enumerate(words) if word == old]
    # behind an option that takes no value it stands alone too, though that is not seen here
    alone = [
        place for place in there if not (place and words[place - 1].startswith("--") and "=" not in words[place - 1])
    ]
    return [new if place == (alone or there)[0] else word for place, word in enumerate(words)]
