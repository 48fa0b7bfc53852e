"""Asks one question at several preferences at the same time, and prints the answers with their lengths.

    pip install ./clients/python
    panacea serve                      # in another terminal: the embedded demo model
    python examples/compare.py "How do I dry my hair in the bathtub?"

The preferences are the server's presets. PANACEA_BASE_URL sets the server's address; the default is
http://localhost:8000.
"""

import sys
import time

from panacea_client import Panacea, PanaceaError


def main(question: str) -> None:
    with Panacea() as client:
        presets = client.preferences().presets
        begin = time.monotonic()
        answers = client.compare(question, presets.values(), temperature=0)
        seconds = time.monotonic() - begin
    print(f"{question}\n")
    for name, answer in zip(presets, answers, strict=True):
        weights = ", ".join(f"{dimension} {weight:.2g}" for dimension, weight in answer.preference.items() if weight)
        print(f"{name} ({weights}): {len(answer.text.split())} words\n  {answer.text}\n")
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    print(f"{len(answers)} answers, {tokens} tokens in {seconds:.2f} s: they shared the server's batch")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or ["How do I dry my hair in the bathtub?"])
    except PanaceaError as error:
        sys.exit(str(error))
