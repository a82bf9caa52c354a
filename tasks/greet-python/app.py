"""Answers a greeting with a log line: the Python version of the Rust example `greet`.

The manifest `greet-python.toml`, in the parent folder, sets the topics of the task. The modules
`componentize_py_types` and `wit_world` are generated from the world `task` when the component is built;
see `README.md` in the parent folder.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, context, log
from wit_world.imports.types import Failure_Reject, Failure_Retry, Message


class Handler(exports.Handler):
    """The export of the task. Its name is the name of the interface in the world."""

    def handle(self, message: Message) -> None:
        """Handles one message, and turns an uncaught exception into a retry.

        Without this the exception would end the run with a trap, and its text would be lost.
        """
        try:
            greet(message)
        except Err:
            raise
        except Exception as error:
            raise Err(Failure_Retry(describe(error))) from None


def greet(message: Message) -> None:
    """Answers a greeting with a log line, and notes the number of its words.

    Rejects a greeting without words, because another attempt would find none either.
    """
    body = json.loads(message.body)
    for field in ("from", "text"):
        if field not in body:
            raise Err(Failure_Reject(f"body does not fit the task: missing field `{field}`"))
    words = len(body["text"].split())
    if words == 0:
        raise Err(Failure_Reject(f"`{body['from']}` said nothing"))

    # The value is in the `[config]` table of the manifest; None if the table does not have the key.
    greeting = config.get("greeting") or "Hello"

    # The log line and the note are stored with the run; `loopabull-host runs` shows them.
    fields = [("topic", message.topic), ("words", str(words))]
    log.write(log.Level.INFO, f"{greeting}, {body['from']}!", fields)
    context.note("words", str(words))


def describe(error: Exception) -> str:
    """Returns an exception's name, text and line.

    The module `traceback` cannot be used: it looks for source files, and there is no file system.
    """
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (line {trace.tb_lineno})"
