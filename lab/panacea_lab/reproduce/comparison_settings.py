"""All numbers of the comparison, in one place."""

from dataclasses import dataclass, field, replace

from panacea_lab.demo.adapter_training import AdapterSettings
from panacea_lab.demo.demo_pairs import PairSettings


@dataclass(frozen=True)
class ReproduceSettings:
    """What is trained and asked; the defaults are those of the committed report."""

    steps: int = 360
    """Of each method and seed, all its policies together: 3 soup adapters get 120 each, 6 discrete policies 60."""
    warmup_share: float = 0.1
    """Of each policy's steps."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    """Batch size, beta and weight of the SFT term, the same for all methods; its rates and steps are not used."""
    singular_value_factor: float = 20.0
    """Learning rate of Panacea's E relative to A and B: a second rate. The search begins at the demo's factor."""
    pairs: PairSettings = field(default_factory=PairSettings)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the adapter's first values, the order of the pairs, and Panacea's draws. The pairs are the same."""

    tuning_seed: int = 100
    tuning_questions: int = 40
    """In the words of training, so that no held-out question has a say in a rate."""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    trials: int = 5
    """Of each method while it is tuned: those rates, and then what lies beside the best."""

    grid_divisions: int = 4
    discrete_divisions: int = 2
    """Discrete policies are trained for the preferences of this coarser grid."""
    tasks: int = 58
    dangers: int = 12
    paraphrases: int | None = None
    """Limit of their number; None: all."""
    temperature: float = 0.7
    samples: int = 2
    """At that temperature; greedy answers are one each."""
    resamples: int = 1000

    @classmethod
    def tiny(cls) -> "ReproduceSettings":
        """The same comparison in seconds, for tests; its numbers say nothing."""
        full = cls()
        return cls(
            steps=6,
            adapter=replace(full.adapter, batch_size=4),
            pairs=replace(full.pairs, questions=8, candidates=4, least_soundness=0),
            seeds=(0,),
            tuning_questions=2,
            learning_rates=(1e-3,),
            trials=1,
            grid_divisions=2,
            tasks=2,
            dangers=1,
            paraphrases=1,
            samples=1,
            resamples=20,
        )
