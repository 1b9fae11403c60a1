"""A CSV of prompts becomes a CSV of pictures: python batch.py prompts.csv pictures.csv

prompts.csv has the columns id, model, prompt. Run it again after a crash, or with more rows: each row's idempotency key
finds the task that it has already, so nothing is made or paid for twice.
"""

import asyncio
import csv
import sys
from pathlib import Path

from taskhook import AsyncTaskhook, TaskFailedError, TaskhookError

AT_ONCE = 20

Row = dict[str, str]


async def generate(client: AsyncTaskhook, batch: str, row: Row, turn: asyncio.Semaphore) -> Row:
    async with turn:
        try:
            task = await client.tasks.create_and_wait(
                model=row["model"],
                prompt=row["prompt"],
                metadata={"batch": batch},
                idempotency_key=f"{batch}:{row['id']}",
            )
        except TaskFailedError as error:
            return {"id": row["id"], "task_id": error.task.id, "error": str(error)}
        except TaskhookError as error:
            return {"id": row["id"], "error": str(error)}
        return {"id": row["id"], "task_id": task.id, "url": task.outputs[0].url}


async def main(source: Path, target: Path) -> None:
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    turn = asyncio.Semaphore(AT_ONCE)
    with target.open("w", newline="") as file:
        results = csv.DictWriter(file, ["id", "task_id", "url", "error"], restval="")
        results.writeheader()
        async with AsyncTaskhook() as client:
            for result in asyncio.as_completed([generate(client, source.stem, row, turn) for row in rows]):
                results.writerow(await result)
                file.flush()


asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
