"""FBGEMM's fused row-wise Adagrad: a program of its own environment (`make bench-setup`), told a word a line.

Arguments: the file that trainer_traffic wrote; threads. Says its version, then answers "train" with the
seconds that it took to learn these batches and the mean loss of the last one. The model is ours
(contract.model_net): biases, factorisation machine, tower, bias by position; its rows lie in one table each,
of one bias, the factors and three columns of padding (rows must be a multiple of 16 bytes), looked up and
updated by one fused call; dense tensors learn by torch's Adagrad. No table of ids: rows come by number.
"""

import sys
import time

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)

LIMIT = 16.0
PADDING = 3


class Model:
    def __init__(self, file):
        self.factors = int(file["factors"])
        self.width = 1 + self.factors + PADDING
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(int(rows), self.width, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in file["rows"]],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=0.05,
            eps=0.1,
            pooling_mode=PoolingMode.SUM,
        )
        self.tables.init_embedding_weights_uniform(-0.05, 0.05)
        column = int(file["category_column"])
        width = file["item_features"].shape[1]
        self.kept = [one for one in range(width) if one != column]
        inputs = file["user_features"].shape[1] + len(self.kept)
        first, second = (int(one) for one in file["hidden"])
        torch.manual_seed(1)
        self.tower = torch.nn.Sequential(
            torch.nn.Linear(3 * self.factors + inputs, first), torch.nn.ReLU(),
            torch.nn.Linear(first, second), torch.nn.ReLU(), torch.nn.Linear(second, 1),
        )  # fmt: skip
        self.linear = torch.nn.Linear(inputs, 1)
        self.position = torch.nn.Parameter(torch.zeros(32))
        dense = [*self.tower.parameters(), *self.linear.parameters(), self.position]
        self.optimizer = torch.optim.Adagrad(dense, lr=0.005, foreach=True)

    def step(self, batch):
        ids, offsets, users, items, positions, labels = batch
        rows = self.tables(ids, offsets).view(-1, 3, self.width)
        u, i, c = (rows[:, place, 1 : 1 + self.factors] for place in range(3))
        given = torch.cat((users, items[:, self.kept]), 1).clamp(-LIMIT, LIMIT)
        logits = self.linear(given).squeeze(1) + rows[:, :, 0].sum(1) + (u * (i + c) + i * c).sum(1)
        logits = logits + self.tower(torch.cat((u, i, c, given), 1)).squeeze(1) + self.position[positions]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()) / len(labels)


def batches(file):
    """Ids of a batch table by table, and where each of its bags of one begins."""
    rows = int(file["batch_rows"])
    columns = {name: torch.from_numpy(file[name]) for name in file.files}
    offsets = torch.arange(3 * rows + 1)
    for start in range(0, len(columns["labels"]), rows):
        cut = slice(start, start + rows)
        ids = torch.cat([columns[name][cut] for name in ("users", "items", "categories")])
        rest = (columns[name][cut] for name in ("user_features", "item_features", "positions", "labels"))
        yield ids, offsets, *rest


def main():
    torch.set_num_threads(int(sys.argv[2]))
    with np.load(sys.argv[1]) as file:
        model, learned = Model(file), list(batches(file))
    print(f"torch-{torch.__version__}", flush=True)
    for _line in sys.stdin:
        began = time.perf_counter()
        for batch in learned:
            loss = model.step(batch)
        print(time.perf_counter() - began, loss, flush=True)


if __name__ == "__main__":
    main()
