"""A server's description of itself: models, preferences, and the adapter's evaluation."""

from pydantic import BaseModel, ConfigDict


class _Information(BaseModel):
    # Accepts unknown fields, which a newer server may send.
    model_config = ConfigDict(frozen=True, extra="allow")


class Model(_Information):
    """A model id and the preference that it selects."""

    id: str
    created: int
    """Seconds since 1970."""
    preference: dict[str, float] | None
    """Weights of a request with this id and without a preference. None for the bare base model."""


class ModelList(_Information):
    """The body of `GET /v1/models`."""

    data: list[Model]


class Dimension(_Information):
    """A property that answers are steered towards."""

    name: str
    description: str


class Preferences(_Information):
    """The preference space. All fields are empty for a base model without adapter."""

    dimensions: list[Dimension]
    """The dimensions, in the order of a list of weights."""
    default: dict[str, float]
    presets: dict[str, dict[str, float]]
    """Named preferences. The preset `brief` is also the model id `<name>:brief`."""
    example_prompts: list[str]

    @property
    def names(self) -> list[str]:
        """The dimensions' names, in order."""
        return [dimension.name for dimension in self.dimensions]


class EvaluationPoint(_Information):
    """The results of one preference, averaged over prompts and samples."""

    preference: list[float]
    rewards: list[float]
    """Mean reward per dimension."""
    standard_errors: list[float]
    mean_words: float
    faithful: float | None
    """Share of sentences that belong to the requested task. None if it was not measured."""
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
    """Low and high. Here and below: 95 % bootstrap intervals, with prompts drawn with replacement."""
    hypervolume: float
    """Volume between the reference point and the front."""
    hypervolume_interval: list[float]
    inner_product: float
    """Mean over the points of the sum of weight times reward."""
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
    """Share of prompts with a different answer at each vertex. None if the sweep lacks a vertex."""


class EvaluationExampleAnswer(_Information):
    """The answer at one preference."""

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
