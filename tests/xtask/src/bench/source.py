"""A source of ansible-rulebook: gives each message of a file, one JSON text a line, and stays.

If it ended, so would ansible-rulebook, with what it has not run yet.
"""

import asyncio
import json


async def main(queue, args):
    with open(args["file"], encoding="utf-8") as messages:
        for message in messages:
            await queue.put(json.loads(message))
    await asyncio.Event().wait()
