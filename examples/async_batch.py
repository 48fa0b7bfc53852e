"""Answers a file of questions, many at a time. Prints JSON lines in the order in which the answers arrive.

    pip install ./clients/python
    panacea serve                      # in another terminal: the embedded demo model
    python examples/async_batch.py questions.txt > answers.jsonl      # or - for standard input

The file has one question per line. A question that fails becomes a line with its error, and the others continue.
PANACEA_BASE_URL sets the server's address; the default is http://localhost:8000.
"""

import asyncio
import json
import sys

from panacea_client import AsyncPanacea, PanaceaError

AT_A_TIME = 32


async def answer_all(questions: list[str]) -> None:
    room = asyncio.Semaphore(AT_A_TIME)

    async def answer(client: AsyncPanacea, question: str) -> None:
        async with room:
            try:
                given = await client.chat(question, preference={"harmless": 1, "concise": 1}, temperature=0)
                line = {"question": question, "answer": given.text, "preference": given.preference}
            except PanaceaError as error:
                line = {"question": question, "error": str(error)}
        print(json.dumps(line, ensure_ascii=False), flush=True)

    async with AsyncPanacea() as client, asyncio.TaskGroup() as tasks:
        for question in questions:
            tasks.create_task(answer(client, question))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/async_batch.py FILE")
    with open(0 if sys.argv[1] == "-" else sys.argv[1], encoding="utf-8") as file:
        asyncio.run(answer_all([line.strip() for line in file if line.strip()]))
