"""What a server says of itself: models, preferences, and how well they were measured to work."""

from pydantic import BaseModel, ConfigDict


class _Information(BaseModel):
    # A newer server may say more than this; it stays readable.
    model_config = ConfigDict(frozen=True, extra="allow")


class Model(_Information):
    """A model id and the preference it stands for."""

    id: str
    created: int
    """Seconds since 1970."""
    preference: dict[str, float] | None
    """Weights that a request with this id gets if it names none; None for the bare base model."""


class ModelList(_Information):
    """The body of `GET /v1/models`."""

    data: list[Model]


class Dimension(_Information):
    """One thing that an answer can be more or less of."""

    name: str
    description: str


class Preferences(_Information):
    """The dimensions that a preference weighs; none for a base model without adapter."""

    dimensions: list[Dimension]
    """In the order in which a preference may list its weights."""
    default: dict[str, float]
    presets: dict[str, dict[str, float]]
    """Named preferences; `brief` is also the model id `<name>:brief`."""
    example_prompts: list[str]

    @property
    def names(self) -> list[str]:
        """The dimensions' names, in order."""
        return [dimension.name for dimension in self.dimensions]


class EvaluationPoint(_Information):
    """What one preference gave, on average over prompts and samples."""

    preference: list[float]
    rewards: list[float]
    """Mean reward per dimension."""
    standard_errors: list[float]
    mean_words: float
    faithful: float | None
    """Share of sentences that belong to the task that was asked for; None where nobody told."""
    non_dominated: bool
    """No other point is at least as good in every dimension and better in one."""


class EvaluationSweep(_Information):
    """A grid over all preferences at one temperature."""

    temperature: float
    samples_per_prompt: int
    points: list[EvaluationPoint]
    spearman: dict[str, float]
    """By dimension: rank correlation between its weight and its mean reward."""
    spearman_intervals: dict[str, list[float]]
    """Low and high; here and below, where 95 % of the values lie when prompts are drawn anew (bootstrap)."""
    hypervolume: float
    """Volume between the reference point and the front."""
    hypervolume_interval: list[float]
    inner_product: float
    """Mean over the points of their weights times their rewards, summed."""
    inner_product_interval: list[float]
    sparsity: float
    """Mean squared gap along the front."""
    sparsity_interval: list[float]
    spacing: float
    """Standard deviation of the points' distances to their nearest neighbours on the front."""
    spacing_interval: list[float]
    non_dominated: int
    distinct: int
    """Points whose rewards differ from all others'."""
    distinct_vertices_share: float | None
    """Share of prompts that got a different answer at each vertex; None where not every vertex was asked."""


class EvaluationExampleAnswer(_Information):
    """What was said at one preference."""

    preference: list[float]
    text: str
    rewards: list[float]


class EvaluationExample(_Information):
    """One prompt and its answers across preferences."""

    prompt: str
    temperature: float
    answers: list[EvaluationExampleAnswer]


class Evaluation(_Information):
    """An adapter's measured front. Numbers per dimension are in the order of `dimensions`."""

    model: str
    created: str
    dimensions: list[str]
    reference_point: list[float]
    prompts: int
    sweeps: list[EvaluationSweep]
    examples: list[EvaluationExample] = []


class Readiness(_Information):
    """The body of `GET /ready`."""

    status: str
