"""The comparison from nothing: pairs, a learning rate for each method, training, examination."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from panacea_lab.demo.examination import NAMES, REFERENCE_POINT
from panacea_lab.demo.job_stages import StageLog
from panacea_lab.reproduce.compared_methods import Method, methods
from panacea_lab.reproduce.comparison_jobs import BASE, PAIRS_STEPS, ComparisonWork, TrainingJob, method_named
from panacea_lab.reproduce.comparison_questions import final_questions
from panacea_lab.reproduce.comparison_results import ComparisonResults, MethodResults, TrainedMethod
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates, best, next_trials
from panacea_lab.reproduce.worker_pool import WorkerPool
from panacea_train.evaluation import summarise


def reproduce(
    base: Path, out: Path, settings: ReproduceSettings, processes: int = 1, show_progress: bool = True
) -> ComparisonResults:
    """Runs the missing jobs of `out` in `processes` processes of one thread each, and returns all results.

    The same settings on the same machine give the same numbers. An interrupted run starts its unfinished jobs again.
    Raises `ConfigError` if `out` cannot be written or holds a run with other settings.
    """
    work = ComparisonWork(base.resolve(), out.resolve(), settings)
    log = StageLog(out, _identity(work))
    with WorkerPool(processes, log, show_progress) as pool:
        pool.run("pairs", {"pairs": work.make_pairs}, PAIRS_STEPS)
        tuned = _tune(work, pool)
        finals = [
            TrainingJob(work, name, best(found), seed, is_tuning=False)
            for name, found in tuned.items()
            for seed in settings.seeds
        ]
        base_job = TrainingJob(work, BASE, Rates(0, 0), 0, is_tuning=False)
        pool.run("base", {base_job.name: base_job}, 0)
        pool.run("training", {job.name: job for job in finals}, settings.steps)
    return ComparisonResults(
        settings=settings,
        questions=len(final_questions(settings)),
        temperatures=[temperature for temperature, _ in base_job.plans],
        base=base_job.answers(),
        methods=[
            MethodResults(
                name=method.name,
                title=method.title,
                description=method.description,
                adapters=method.adapters,
                preferences=[asked for asked, _ in method.points(settings)],
                tuning=sorted(tuned[method.name].items()),
                rates=best(tuned[method.name]),
                has_factor=method.has_factor,
                trained=[
                    TrainedMethod(job.seed, log.seconds[job.name], job.answers())
                    for job in finals
                    if job.method == method.name
                ],
            )
            for method in methods(settings)
        ],
    )


def _identity(work: ComparisonWork) -> str:
    """Of what is compared: the base's weights and all that is set."""
    weights = sha256((work.base / "model.safetensors").read_bytes()).hexdigest()
    return sha256(msgspec.json.encode([weights, work.settings])).hexdigest()


def _tune(work: ComparisonWork, pool: WorkerPool) -> dict[str, dict[Rates, float]]:
    """Hypervolume of greedy answers to the tuning questions, by method and learning rates."""
    settings = work.settings
    tuned: dict[str, dict[Rates, float]] = {method.name: {} for method in methods(settings)}
    while True:
        jobs = [
            TrainingJob(work, method.name, rates, settings.tuning_seed, is_tuning=True)
            for method in methods(settings)
            for rates in _trials(settings, method, tuned[method.name])
        ]
        if not jobs:
            return tuned
        pool.run("tuning", {job.name: job for job in jobs}, settings.steps)
        for job in jobs:
            tuned[job.method][job.rates] = _hypervolume(job)


def _trials(settings: ReproduceSettings, method: Method, found: dict[Rates, float]) -> Sequence[Rates]:
    if not found:
        return [Rates(rate, settings.singular_value_factor) for rate in settings.learning_rates]
    return next_trials(found, method.has_factor, settings.trials - len(found))


def _hypervolume(job: TrainingJob) -> float:
    preferences = [asked for asked, _ in method_named(job.method, job.work.settings).points(job.work.settings)]
    (greedy,) = job.answers()
    return summarise(NAMES, REFERENCE_POINT, 0.0, preferences, greedy, resamples=1).hypervolume
