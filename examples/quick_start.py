"""Asks one question at each dimension alone, and streams the answer at an equal mixture.

    pip install ./clients/python
    panacea serve                      # in another terminal: the embedded demo model
    python examples/quick_start.py "How do I sharpen a knife?"

PANACEA_BASE_URL sets the server's address; the default is http://localhost:8000. PANACEA_API_KEY is its key.
"""

import sys

from panacea_client import Panacea, PanaceaError


def main(question: str) -> None:
    with Panacea() as client:
        for name in client.preferences().names:
            answer = client.chat(question, preference={name: 1}, temperature=0)
            print(f"{name}:\n  {answer.text}\n")

        print("an equal mixture, as it streams:\n  ", end="")
        with client.stream(question, preference=[1] * len(client.preferences().names), temperature=0) as stream:
            for piece in stream:
                print(piece, end="", flush=True)
        print(f"\n  {stream.usage.completion_tokens} tokens, preference {stream.preference}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or ["How do I sharpen a knife?"])
    except PanaceaError as error:
        sys.exit(str(error))
