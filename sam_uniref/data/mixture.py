"""Which data set a step draws from, and which samples: a pure function of the seed and the step.

Nothing is remembered between steps, so a run goes on exactly where it stopped, and one process draws the
same global batches as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from sam_uniref.data.batch import PictureFeatures, ReferenceBatch, collate
from sam_uniref.data.readers import SampleSource
from sam_uniref.transforms import ImageTransform

# Streams of chance: what is drawn for one purpose must not move with another.
_CHOICE, _ORDER, _LANGUAGE, _SAMPLE, _SIZE = range(5)


class MixtureSchedule:
    """The data set of every optimiser step, drawn by weight.

    Args:
        weights: Of the data sets.
        steps: Length of the run.
        seed: Of the run.
    """

    def __init__(self, weights: Sequence[float], steps: int, seed: int) -> None:
        share = np.asarray(weights, dtype=np.float64)
        if not len(share) or (share < 0).any() or share.sum() <= 0:
            raise ValueError(f"weights must be positive for at least one data set, got {list(weights)}")
        rng = np.random.default_rng([seed, _CHOICE])
        self.choice = rng.choice(len(share), size=steps, p=share / share.sum())
        self.earlier = np.zeros(steps, np.int64)
        for dataset in range(len(share)):
            drawn = self.choice == dataset
            self.earlier[drawn] = np.arange(drawn.sum())

    def at(self, step: int) -> tuple[int, int]:
        """The data set of a step, and how many earlier steps drew from it."""
        return int(self.choice[step]), int(self.earlier[step])


@lru_cache(maxsize=8)
def _order(seed: int, dataset: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order of a data set in one pass over it."""
    return np.random.default_rng([seed, _ORDER, dataset, epoch]).permutation(length)


@dataclass
class TrainingBatches(torch.utils.data.Dataset[ReferenceBatch]):
    """Item i is this process's batch of micro-step i, all of one data set; the same for any number of workers.

    Attributes:
        datasets: To draw from.
        transform: Of the model that is trained.
        steps: Optimiser steps of the run.
        batch_size: Samples a process takes at a micro-step.
        accumulate: Micro-steps an optimiser step; they draw from one data set.
        seed: Of the run.
        rank: Of this process.
        processes: Number of processes.
        one_orientation: Whether all pictures of a step are wider than high, or none is, so that less is padding. An
            epoch then shows some samples twice, to fill the last step of either kind.
        features: What the frozen encoder made of all pictures, where it is not to see them again.
        on_sample: Told the name of every sample before it is read, so that one that can't be read is known.
    """

    datasets: Sequence[SampleSource]
    transform: ImageTransform
    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    rank: int = 0
    processes: int = 1
    one_orientation: bool = False
    features: PictureFeatures | None = None
    on_sample: Callable[[str], None] | None = None
    _epochs: dict[int, tuple[int, NDArray[np.int64]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for dataset in self.datasets:
            self._transform(dataset, 0, 0)  # what is wrong with the sizes is said before the run begins
        self.schedule = MixtureSchedule([d.weight for d in self.datasets], self.steps, self.seed)

    def __len__(self) -> int:
        """Number of micro-steps."""
        return self.steps * self.accumulate

    @property
    def _step_samples(self) -> int:
        """Of all processes and micro-steps."""
        return self.batch_size * self.processes * self.accumulate

    def __getitem__(self, micro_step: int) -> ReferenceBatch:
        """This process's share of a global micro-batch."""
        step, micro = divmod(micro_step, self.accumulate)
        chosen, earlier = self.schedule.at(step)
        dataset = self.datasets[chosen]
        language_only = bool(np.random.default_rng([self.seed, _LANGUAGE, step]).random() < dataset.language_only)
        first = (micro * self.processes + self.rank) * self.batch_size
        samples, transforms = [], []
        for place in range(first, first + self.batch_size):
            drawn = earlier * self._step_samples + place
            rng = np.random.default_rng([self.seed, _SAMPLE, step, place])
            index = self._index(chosen, drawn)
            if self.on_sample is not None:
                self.on_sample(dataset.label(index))
            samples.append(dataset.sample(index, rng, language_only=language_only))
            transforms.append(self._transform(dataset, step, place))
        return collate(samples, transforms, self.features)

    def _transform(self, dataset: SampleSource, step: int, place: int) -> ImageTransform:
        """The model's transform at the size that a sample is looked at; samples of one picture share it."""
        if dataset.short_sides is None:
            return self.transform
        rng = np.random.default_rng([self.seed, _SIZE, step, place // dataset.together])
        return dataset.short_sides.draw(self.transform, rng)

    def _index(self, chosen: int, drawn: int) -> int:
        """The sample that a data set gives when so many were drawn before; those of one picture come together."""
        landscape = self.datasets[chosen].landscape if self.one_orientation else None
        if landscape is not None:
            earlier, place = divmod(drawn, self._step_samples)
            return int(self._oriented(chosen, landscape, earlier)[place])
        together = self.datasets[chosen].together
        pictures = len(self.datasets[chosen]) // together
        epoch, position = divmod(drawn // together, pictures)
        order = _order(self.seed, chosen, epoch, pictures)
        return int(order[position]) * together + drawn % together

    def _oriented(self, chosen: int, landscape: NDArray[np.bool_], earlier: int) -> NDArray[np.int64]:
        """The samples of a step before which so many drew from a data set: all landscape or none.

        Of a whole step, since how a step is shared out may change when a run goes on.
        """
        size = self._step_samples
        count = sum(-(-int((landscape == kind).sum()) // size) for kind in (False, True))
        epoch, position = divmod(earlier, count)
        if self._epochs.get(chosen, (-1,))[0] != epoch:
            order = _order(self.seed, chosen, epoch, len(landscape))
            kinds = (order[landscape[order] == kind] for kind in (False, True))
            steps = np.concatenate([np.resize(kind, (-(-len(kind) // size), size)) for kind in kinds if len(kind)])
            shuffled = np.random.default_rng([self.seed, _ORDER, chosen, epoch, count]).permutation(count)
            self._epochs[chosen] = epoch, steps[shuffled]
        return self._epochs[chosen][1][position]
