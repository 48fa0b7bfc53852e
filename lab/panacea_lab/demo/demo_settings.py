"""All numbers of the demo, in one place."""

from dataclasses import dataclass, field, replace

from panacea_lab.demo.adapter_training import AdapterSettings
from panacea_lab.demo.base_training import BaseSettings, TrainingPhase
from panacea_lab.demo.demo_pairs import PairSettings
from panacea_lab.demo.examination import ExamSettings


@dataclass(frozen=True)
class DemoSettings:
    """What is trained and how it is examined; the defaults are the demo model that the package carries."""

    base: BaseSettings = field(default_factory=BaseSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    exam: ExamSettings = field(default_factory=ExamSettings)
    tasks: int | None = None
    """Limit of the world's tasks; None: all. `dangers` is the same for the dangerous requests."""
    dangers: int | None = None

    @classmethod
    def tiny(cls) -> "DemoSettings":
        """The same pipeline in seconds, for tests: a few topics, a toy model that has learned next to nothing."""
        full = cls()
        return cls(
            base=replace(
                full.base,
                vocab_size=512,
                hidden_size=32,
                intermediate_size=64,
                layers=2,
                heads=2,
                phases=(TrainingPhase(20_000, 3e-3), TrainingPhase(5_000, 1e-3, strange_share=0.5)),
            ),
            pairs=replace(full.pairs, questions=12, candidates=4, least_soundness=0),
            adapter=replace(full.adapter, steps=4, warmup_steps=2),
            exam=replace(full.exam, tasks=2, dangers=1, grid_divisions=1, samples=2),
            tasks=4,
            dangers=2,
        )
