"""What the batch benchmark says of its runs."""

from __future__ import annotations

from benchmarks.batch_figures import ONE, THREADS, TWO, Run, figures, missed, table


def run(wall_s: float, auc: float = 0.7, digest: str = "a") -> Run:
    return Run(wall_s, wall_s / 4, wall_s * 2, auc, 3, digest)


def rounds(**changes: list[Run]) -> dict[str, list[Run]]:
    return {ONE: [run(20), run(30)], THREADS: [run(16), run(18)], TWO: [run(10), run(10)]} | changes


def test_speed_ups_are_those_of_neighbouring_runs() -> None:
    found = figures(rounds())
    assert found["speed_up"]["over_one_process"]["wall_s"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert found["speed_up"]["over_one_process_two_threads"]["pass_s"]["median"] == 1.7
    assert found["sides"][TWO]["cpu_s"]["median"] == 20
    assert missed(found) == []


def test_another_auc_and_other_bits_are_misses() -> None:
    found = figures(rounds(**{THREADS: [run(16), run(18, auc=0.7021)], ONE: [run(20), run(30, digest="b")]}))
    assert found["auc_difference"] == 0.0021
    assert missed(found) == ["auc 0.0021 apart", f"{ONE}: other bits each time"]
    lines = table(found | {"missed": missed(found)}).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 4
    assert lines[-1].startswith("missed: ")
