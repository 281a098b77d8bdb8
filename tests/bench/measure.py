"""Rounds of all sides in turn, their medians, and the ratios with their spread.

Each round measures every side once, in another order than the round before, so that a machine that gets slower does
so for all. A round gives one ratio for each peer. The ratio of a row is the median of these. Its spread is the width of
the 95 % confidence interval of that median, by ranks and without an assumption about the noise, as a share of the
median. It gets smaller with each round, and a row ends when the spreads of its main figures are under the limit.
"""

import statistics
from math import comb

LIMIT = 0.05
ROUNDS = (6, 30)  # at least, for an interval by ranks to exist; at most


def interval(values):
    """The 95 % confidence interval of the median, or None for too few values."""
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.0
    while 2 * (below + comb(count, rank) / 2**count) <= 0.05:
        below += comb(count, rank) / 2**count
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def spread(values):
    """The width of that interval as a share of the median; None for too few values."""
    found, median = interval(values), statistics.median(values)
    return None if found is None or not median else (found[1] - found[0]) / median


class Result:
    """The samples of a row: for each side a list of rounds, each with its figures by their keys."""

    def __init__(self, row, sides):
        self.row, self.samples = row, {side: [] for side in sides}
        self.noise = []

    @property
    def ours(self):
        return next(iter(self.samples))

    @property
    def peers(self):
        return list(self.samples)[1:]

    @property
    def rounds(self):
        return len(self.samples[self.ours])

    def values(self, side, key):
        return [sample[key] for sample in self.samples[side] if sample.get(key) is not None]

    def median(self, side, key):
        values = self.values(side, key)
        return statistics.median(values) if values else None

    def ratios(self, peer, key):
        pairs = zip(self.samples[self.ours], self.samples[peer])
        return [ours[key] / theirs[key] for ours, theirs in pairs if ours.get(key) is not None and theirs.get(key)]

    def ratio(self, peer, key):
        ratios = self.ratios(peer, key)
        return statistics.median(ratios) if ratios else None

    def spread(self, peer):
        """The largest spread among the main figures."""
        spreads = [spread(ratios) for key in self.row.main if (ratios := self.ratios(peer, key))]
        return None if not spreads or None in spreads else max(spreads)

    def steady(self):
        spreads = [self.spread(peer) for peer in self.peers]
        return not self.row.main or all(found is not None and found < LIMIT for found in spreads)


def run(row, bench, sides, progress):
    """Measures until the ratios are steady, or for as many rounds as there are at most."""
    result = Result(row, [side.name for side in sides])
    least, most = (row.rounds, row.rounds) if row.rounds else (bench.rounds or ROUNDS)
    while result.rounds < most and not (result.rounds >= least and result.steady()):
        shift = result.rounds % len(sides)
        order = sides[shift:] + sides[:shift]
        if result.rounds // len(sides) % 2:
            order.reverse()
        taken = {}
        for side in order:
            progress(f"{row.name}: round {result.rounds + 1}, {side.name}")
            taken[side.name] = row.sample(bench, side)
        for side, sample in taken.items():
            if (noise := sample.pop("noise", None)) is not None:
                result.noise.append(noise)
            result.samples[side].append(sample)
    return result


def self_test():
    """The interval by ranks, against values from a table of the binomial distribution."""
    assert interval(range(1, 6)) is None and spread([1, 2, 3, 4, 5]) is None
    assert interval(range(1, 7)) == (1, 6)
    assert interval(range(1, 10)) == (2, 8)
    assert interval(range(1, 31)) == (10, 21)
    assert spread([100] * 5 + [101]) == 0.01
    row = type("row", (), {"main": ("cpu",)})
    result = Result(row, ["agent", "peer"])
    result.samples = {"agent": [{"cpu": 2.0}] * 5, "peer": [{"cpu": 1.0}] * 5}
    assert result.ratio("peer", "cpu") == 2 and not result.steady(), "five rounds are too few"
    result.samples = {side: [*samples, *samples[:1]] for side, samples in result.samples.items()}
    assert result.steady() and result.spread("peer") == 0
    result.samples["peer"] = [*result.samples["peer"][:5], {"cpu": 1.2}]
    assert not result.steady(), "one noisy round of six is too much"
