"""A source for ansible-rulebook. It emits each message of a file, which has one JSON text per line.

After the last message the source waits for ever. If it ended, ansible-rulebook would end before all playbooks
have run.
"""

import asyncio
import json


async def main(queue, args):
    with open(args["file"], encoding="utf-8") as messages:
        for message in messages:
            await queue.put(json.loads(message))
    await asyncio.Event().wait()
