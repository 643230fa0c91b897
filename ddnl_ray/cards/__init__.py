"""Finished distilled sets: reading their cards, checking them, training networks on them, exporting them."""

from __future__ import annotations

from ddnl_ray.cards.check import problems
from ddnl_ray.cards.exporting import FORMATIONS, FORMATS, export
from ddnl_ray.cards.read import Card, read_about, read_card
from ddnl_ray.cards.score import LEVEL, Retrained, SealedTest, Verdict, judge, retrain, sealed_test
from ddnl_ray.cards.words import describe

__all__ = [
    "FORMATIONS",
    "FORMATS",
    "LEVEL",
    "Card",
    "Retrained",
    "SealedTest",
    "Verdict",
    "describe",
    "export",
    "judge",
    "problems",
    "read_about",
    "read_card",
    "retrain",
    "sealed_test",
]
