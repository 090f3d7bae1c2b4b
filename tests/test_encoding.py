"""Which examples make a batch; what a batch holds is in the tests of the tasks."""

import numpy as np
import pytest

from keras_bert.training.encoding import padding_waste, plan_batches


def random_lengths(count):
    return np.random.default_rng(0).geometric(0.05, count) + 2


@pytest.mark.parametrize("bucketed", [True, False])
@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (31, 1), (1000, 1), (1000, 3), (20_001, 2)])
def test_an_epoch_has_every_example_once(count, replicas, bucketed):
    plan = plan_batches(random_lengths(count), 32, seed=1, epoch=0, bucketed=bucketed, multiple_of=replicas)
    used = np.concatenate(plan)
    assert len(np.unique(used)) == len(used) == count - count % replicas
    assert sorted(map(len, plan), reverse=True)[: count // 32] == [32] * (count // 32)
    again = plan_batches(random_lengths(count), 32, seed=1, epoch=0, bucketed=bucketed, multiple_of=replicas)
    assert all(np.array_equal(one, other) for one, other in zip(plan, again, strict=True))


def test_epochs_and_seeds_have_orders_of_their_own():
    plans = [plan_batches(random_lengths(1000), 32, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    firsts = [np.concatenate(plan).tolist() for plan in plans]
    assert firsts[0] != firsts[1] != firsts[2] != firsts[0]


@pytest.mark.parametrize("count", [2000, 60_000])
def test_batches_of_like_length_hold_little_padding(count):
    """A tenth of what batches in random order hold."""
    lengths = random_lengths(count)
    waste = [
        padding_waste(lengths, plan_batches(lengths, 32, seed=0, epoch=0, bucketed=bucketed))
        for bucketed in (True, False)
    ]
    assert 0 < waste[0] < 0.1 * waste[1]


def test_padding_waste_is_the_part_of_the_places_that_is_padding():
    lengths = np.array([2, 4, 5, 5])
    assert padding_waste(lengths, [np.array([0, 1]), np.array([2, 3])]) == pytest.approx(2 / 18)
    assert padding_waste(lengths, []) == 0.0
