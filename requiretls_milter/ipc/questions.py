"""Which questions have one answer: those that differ in the size of the message alone, mostly.

A forecast holds for all messages that are not larger than :attr:`Forecast.largest`. It is kept
under a key without a size, and found for each of them.
"""

from __future__ import annotations

from requiretls_milter.model import Forecast, Question, Requirement

Key = tuple[str, str, Requirement, Requirement, bool, int]
"""A question, as a key that is cheap to look up: its texts, then what the message needs."""


def key_of(question: Question, size: int) -> Key:
    """The key of an answer for messages of this size; 0 if it holds for many sizes."""
    needs = question.needs
    return (
        question.nexthop,
        question.transport,
        question.asked,
        question.carried,
        needs.smtputf8,
        size,
    )


def keys_of(question: Question) -> tuple[Key, ...]:
    """The keys under which there may be an answer: for many sizes, and for its own alone."""
    size = question.needs.size
    general = key_of(question, 0)
    return (general, key_of(question, size)) if size else (general,)


def key_for(question: Question, forecast: Forecast) -> Key:
    """The key under which an answer to a question is to be kept."""
    size = question.needs.size
    return key_of(question, 0 if holds_for(forecast, size) else size)


def holds_for(forecast: Forecast, size: int) -> bool:
    """Whether a forecast that is kept without a size holds for messages of this size."""
    return forecast.largest is None or size <= forecast.largest
