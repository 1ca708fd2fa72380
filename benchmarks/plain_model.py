"""The loop's own catalogue, features and model as plain arrays, and the least that recall and ranking can
be on them: for the peers of bench_loop. Needs numpy and torch, nothing of the project.

Users and items are numbers from 0, so nothing is looked up: row i of every matrix is item i. Arrays of the
file (.npz), float32: item_vectors [items, factors + 1] (the last is the bias), user_vectors [users, factors];
item_features [items, w], user_features [users, v]; item_rows, user_rows, category_rows [n, 1 + factors];
the dense tensors under ``dense.`` and their names; category_column, a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

FEATURE_LIMIT = 16.0
DENSE = "dense."
# Scores looked at for a bound on the k-th best; see largest().
_SAMPLE = 4096

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


class PlainModel:
    """Recall by one product over all items, and the ranking of candidates; what depends on the model alone is
    computed once."""

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        self._arrays = arrays
        self.item_features: Floats = self._arrays["item_features"]
        self.user_features: Floats = self._arrays["user_features"]
        self.item_vectors: Floats = self._arrays["item_vectors"]
        self.user_vectors: Floats = self._arrays["user_vectors"]
        self._rows = {
            name: torch.from_numpy(self._arrays[f"{name}_rows"]) for name in ("user", "item", "category")
        }
        self._prepare()

    @classmethod
    def read(cls, path: Path) -> PlainModel:
        """Of a file."""
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def _prepare(self) -> None:
        dense = {
            name.removeprefix(DENSE): torch.from_numpy(values)
            for name, values in self._arrays.items()
            if name.startswith(DENSE)
        }
        self._category = int(self._arrays["category_column"])
        factors = self._rows["item"].shape[1] - 1
        users = self.user_features.shape[1]
        of_dense = 3 * factors + users
        weight, linear = dense["hidden1.weight"], dense["linear.weight"][0]
        self._user_weight = torch.cat((weight[:, :factors], weight[:, 3 * factors : of_dense]), 1)
        # The category is a column of the features and no input: a zero weight is cheaper than to cut it out.
        width = self.item_features.shape[1]
        kept = [column for column in range(width) if column != self._category]
        of_features = torch.zeros((len(weight), width))
        of_features[:, kept] = weight[:, of_dense:]
        self._item_weight = torch.cat((weight[:, factors : 3 * factors], of_features), 1).T.contiguous()
        self._user_linear = linear[:users]
        self._item_linear = torch.zeros(width)
        self._item_linear[kept] = linear[users:]
        position = (dense["position_share"] * dense["position_bias"]).sum()
        self._bias = dense["bias"][0] + position
        self._hidden1_bias = dense["hidden1.bias"]
        self._hidden2 = (dense["hidden2.bias"], dense["hidden2.weight"].T.contiguous())
        self._output = dense["output.weight"][0].contiguous()

    def recall(self, user: int, n: int) -> Numbers:
        """The n items with the largest product, in any order."""
        scores = self.item_vectors @ np.append(self.user_vectors[user], np.float32(1))
        return largest(scores, n)

    @torch.inference_mode()
    def rank(
        self, user: int, items: Numbers, user_features: Floats, item_features: Floats, n: int
    ) -> tuple[Numbers, Floats]:
        """The best n of candidates [c] and their click probabilities, best first; ``user_features`` [v],
        ``item_features`` [c, w]."""
        logits = self._logits(user, items, user_features, item_features)
        values, places = torch.topk(logits, min(n, len(items)))
        return items[places.numpy()], torch.sigmoid(values).numpy()

    def _logits(
        self, user: int, items: Numbers, user_features: Floats, item_features: Floats
    ) -> torch.Tensor:
        given = torch.from_numpy(item_features).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        of_user = torch.from_numpy(user_features).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
        categories = torch.from_numpy(item_features[:, self._category].astype(np.int64))
        item = self._rows["item"].index_select(0, torch.from_numpy(items))
        category = self._rows["category"].index_select(0, categories)
        row = self._rows["user"][user]
        u, i, c = row[1:], item[:, 1:], category[:, 1:]
        logits = self._bias + row[0] + self._user_linear @ of_user
        logits = logits + item[:, 0] + category[:, 0] + given @ self._item_linear
        logits = logits + (i + c) @ u + (i * c).sum(1)
        first = self._hidden1_bias + self._user_weight @ torch.cat((u, of_user))
        hidden = torch.addmm(first, torch.cat((i, c, given), 1), self._item_weight).relu_()
        hidden = torch.addmm(self._hidden2[0], hidden, self._hidden2[1]).relu_()
        return logits + hidden @ self._output


def largest(scores: Floats, k: int) -> Numbers:
    """Places of k largest of [n] scores, in any order: all are compared with a bound from a sample, and only
    what reaches it is partitioned."""
    k = min(k, len(scores))
    step = len(scores) // _SAMPLE
    if step > 1:
        sample = scores[::step]
        rank = 2 * k // step + 16
        if rank < len(sample):
            bound = np.partition(sample, len(sample) - rank)[len(sample) - rank]
            places = np.flatnonzero(scores >= bound)
            if len(places) >= k:
                return places[np.argpartition(scores[places], len(places) - k)[len(places) - k :]]
    return np.argpartition(scores, len(scores) - k)[len(scores) - k :]
