"""The progress bar of a conversion's stages."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stages(title: str, total: int) -> Generator[Callable[[str], None]]:
    """A progress bar of `total` stages. It yields a function to call with a stage's name when the stage begins."""
    with tqdm(total=total, desc=title, unit="stage", leave=False) as bar:
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            begun += 1
            bar.set_description(f"{title}: {name}")

        yield begin
