"""Uses the official openai client unchanged. The preference goes into extra_body, or into the model's id.

    pip install openai
    panacea serve                      # in another terminal: the embedded demo model
    python examples/openai_client.py "How do I plant bulbs?"

PANACEA_BASE_URL sets the server's address; the default is http://localhost:8000. PANACEA_API_KEY is its key.
"""

import os
import sys

from openai import OpenAI, OpenAIError


def main(question: str) -> None:
    base_url = os.environ.get("PANACEA_BASE_URL", "http://localhost:8000").rstrip("/").removesuffix("/v1")
    with OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("PANACEA_API_KEY") or "unused") as client:
        models = [model.id for model in client.models.list()]
        messages = [{"role": "user", "content": question}]

        answer = client.chat.completions.create(
            model=models[0], messages=messages, temperature=0, extra_body={"preference": {"helpful": 2, "concise": 1}}
        )
        print(f"{answer.preference}:\n  {answer.choices[0].message.content}\n")

        # Presets are model ids too, for front ends that have a model menu but no field for a preference.
        for model in models[1:]:
            print(f"{model}:\n  ", end="")
            for chunk in client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True):
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            print("\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or ["How do I plant bulbs?"])
    except OpenAIError as error:
        sys.exit(str(error))
