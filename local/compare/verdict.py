"""What a comparison must show, and what in its figures does not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

# These read the snapshot: they say the same and leak nothing.
EXACT = ("offline", "stream", "label_first")
MIN_SAMPLES = 50_000


def failures(figures: Mapping[str, Any], min_samples: int = MIN_SAMPLES, *, speeds: bool = True) -> list[str]:
    """One line per claim that does not hold; empty when all do. ``speeds``: whether the run was long enough
    for the leak to be compared between speeds."""
    problems = [f"{name} died during the run" for name in figures["deaths"]]
    for name, scheme in figures["schemes"].items():
        if scheme["samples"] < min_samples:
            problems.append(f"{name}: {scheme['samples']} samples, fewer than {min_samples}")
        if scheme["completeness"] < 1:
            missing, repeated = (scheme["differences"][code] for code in ("missing", "duplicate"))
            problems.append(
                f"{name}: completeness {scheme['completeness']:.6f} ({missing} missing, {repeated} twice)"
            )
    for name in EXACT:
        scheme = figures["schemes"][name]
        problems += [
            f"{name}: {kind} columns leak, {rate:.2%} of the values"
            for kind, rate in scheme["leak_rate"].items()
            if rate
        ]
        problems += [
            f"{name} and the oracle differ: {count} x {code}"
            for code, count in scheme["differences"].items()
            if count
        ]
    static = figures["speeds"]["static"]
    if static["leak_rate"]:
        problems.append(f"{figures['speeds']['scheme']}: {static['column']} never moves and leaks")
    problems += _speed_failures(figures["speeds"]) if speeds else []
    if figures["reconciliation"]["unexplained"]:
        problems.append(f"reconciliation: {figures['reconciliation']['unexplained']} unexplained differences")
    # Not by AUC: the order of a model that knows nothing is chance, and far from 0.5 as often as near.
    chance = figures["shuffled_labels"]["log_loss"]
    problems += [
        f"{name}: log loss {figures['schemes'][name]['log_loss']:.4f}, not below {chance:.4f} of shuffled "
        "labels"
        for name in EXACT
        if not figures["schemes"][name]["log_loss"] < chance
    ]
    return problems


def _speed_failures(speeds: Mapping[str, Any]) -> list[str]:
    scheme, column = speeds["scheme"], speeds["column"]
    if not speeds["classes"]:
        return [f"{scheme}: {column} has fewer than three speeds in this run: too few clicks"]
    rates = [speeds["static"]["leak_rate"], *(one["leak_rate"] for one in speeds["classes"])]
    if all(one < other for one, other in pairwise(rates)):
        return []
    said = ", ".join(f"{rate:.4f}" for rate in rates)
    return [f"{scheme}: the leak of {column} does not rise with its speed: {said}"]
