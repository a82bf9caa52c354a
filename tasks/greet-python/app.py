"""Greets whoever publishes a greeting: what `greet` does in Rust, in Python.

`greet-python.toml`, in the folder above, says for which topics it runs. `componentize_py_types` and
`wit_world` are made of the world `task` when the component is built; see `README.md` there.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, context, log
from wit_world.imports.types import Failure_Reject, Failure_Retry, Message


class Handler(exports.Handler):
    """What the task exports. The name is that of the interface in the world."""

    def handle(self, message: Message) -> None:
        """Works one message, and says of an exception that nobody caught what it was.

        Left alone it would end the run as a trap, and its text be lost with it.
        """
        try:
            greet(message)
        except Err:
            raise
        except Exception as error:
            raise Err(Failure_Retry(told(error))) from None


def greet(message: Message) -> None:
    """Answers a greeting with a log line, and notes how many words it had.

    Rejects a greeting without words: it will have none the next time either.
    """
    body = json.loads(message.body)
    for field in ("from", "text"):
        if field not in body:
            raise Err(Failure_Reject(f"body does not fit the task: missing field `{field}`"))
    words = len(body["text"].split())
    if words == 0:
        raise Err(Failure_Reject(f"`{body['from']}` said nothing"))

    # From the `[config]` table of the manifest; None if it does not name the key.
    greeting = config.get("greeting") or "Hello"

    # Kept with the run: `loopabull-host runs` shows the line and the note.
    fields = [("topic", message.topic), ("words", str(words))]
    log.write(log.Level.INFO, f"{greeting}, {body['from']}!", fields)
    context.note("words", str(words))


def told(error: Exception) -> str:
    """Returns an exception's name, text and line.

    The module `traceback` would look for the source on a file system, and there is none.
    """
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (line {trace.tb_lineno})"
