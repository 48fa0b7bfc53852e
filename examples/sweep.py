"""Asks one question over the whole space of preferences. Writes a table of all answers and a plot of their lengths.

    pip install ./clients/python matplotlib
    panacea serve                      # in another terminal: the embedded demo model
    python examples/sweep.py "How do I boil an egg?" --steps 6 --out egg      # writes egg.csv and egg.png

PANACEA_BASE_URL sets the server's address; the default is http://localhost:8000.
"""

import argparse
import csv
import sys

from panacea_client import ChatAnswer, Panacea, PanaceaError

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    sys.exit("the plot needs matplotlib: pip install matplotlib")


def plot(path: str, names: list[str], answers: list[ChatAnswer]) -> None:
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        axes.scatter([answer.preference[name] for answer in answers], [len(answer.text.split()) for answer in answers])
        axes.set(xlabel=f"weight of {name}", ylabel="words")
    figure.savefig(path)


def main(question: str, steps: int, out: str) -> None:
    with Panacea() as client:
        answers = client.sweep(question, steps=steps, temperature=0, on_answer=lambda _: print(".", end="", flush=True))
    names = list(answers[0].preference)
    with open(f"{out}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*names, "answer"], *([*each.preference.values(), each.text] for each in answers)])
    plot(f"{out}.png", names, answers)
    print(f"\n{len(answers)} answers: {out}.csv, {out}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="How do I boil an egg?")
    parser.add_argument("--steps", type=int, default=6, help="points on an edge; 6 in three dimensions give 21 answers")
    parser.add_argument("--out", default="sweep", help="name of the files, without .csv and .png")
    try:
        main(**vars(parser.parse_args()))
    except (PanaceaError, ValueError) as error:
        sys.exit(str(error))
