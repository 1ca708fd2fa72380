"""A small run in tables: what ranking logged, what was shown, and the samples that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from services.contract.lake_rows import SCHEMAS
from tests.feature_kit import FEATURES

AT_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
REQUESTS, SERVED, SHOWN = 40, 6, 3


@dataclass
class SmallRun:
    """Rows as dicts, to be changed by a test; ``samples`` are those of an exact scheme."""

    snapshots: list[dict[str, Any]]
    impressions: list[dict[str, Any]]
    samples: list[dict[str, Any]]

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """(samples, snapshots, impressions) in the lake's schemas."""
        return samples_table(self.samples), _table("snapshots", self.snapshots), _impressions(self)


def samples_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Samples in the lake's schema."""
    return _table("samples", rows)


def _impressions(run: SmallRun) -> pa.Table:
    return _table("impressions", run.impressions)


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])


def small_run(seed: int = 5) -> SmallRun:
    """Every request is scored, shown half a second later, and some of what is shown is clicked."""
    random = np.random.default_rng(seed)
    run = SmallRun([], [], [])
    for number in range(REQUESTS):
        request, at_us, user = f"r{number:03d}", AT_US + number * SECOND_US, int(random.integers(1, 9))
        items = random.choice(np.arange(100, 140, dtype=np.uint64), SERVED, replace=False)
        user_features = random.normal(0, 1, FEATURES.user_width).astype(np.float32)
        item_features = random.normal(0, 1, (SERVED, FEATURES.item_width)).astype(np.float32)
        model = {"schema_hash": FEATURES.schema_hash, "generation": 1, "policy": "online", "sequence": 4}
        common = {"request_id": request, "occurred_us": at_us, "user_id": user, **model, "arm": "online"}
        common |= {"user_features": user_features.tobytes(), "scored_us": at_us + 9}
        log = {"partition": number % 4, "offset": number, "appended_ms": at_us // 1000, "record": "event"}
        run.snapshots.append(
            common
            | log
            | {
                "item_ids": items.astype("<u8").tobytes(),
                "scores": random.random(SERVED).astype("<f4").tobytes(),
                "item_features": item_features.tobytes(),
            }
        )
        shown_us = at_us + SECOND_US // 2
        run.impressions.append(
            log
            | {
                "appended_ms": shown_us // 1000,
                "request_id": request,
                "occurred_us": shown_us,
                "item_ids": items[:SHOWN].tolist(),
            }
        )
        for place in range(SHOWN):
            clicked = random.random() < 0.3
            run.samples.append(
                common
                | {
                    "partition": number % 4,
                    "offset": len(run.samples),
                    "row": 0,
                    "appended_ms": shown_us // 1000 + (1_500 if clicked else 20_000),
                    "item_id": int(items[place]),
                    "label": float(clicked),
                    "label_version": 0,
                    "position": place,
                    "score": 0.25,
                    "sample_rate": 1.0,
                    "impressed_us": shown_us,
                    "acted_us": shown_us + SECOND_US if clicked else None,
                    "joined_us": shown_us,
                    "item_features": item_features[place].tobytes(),
                }
            )
    return run
