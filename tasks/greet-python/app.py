"""Answers a greeting with a log line: the Python version of the Rust example `greet`.

The manifest `greet-python.toml`, in the parent folder, sets the topics of the task. componentize-py generates
the modules `componentize_py_types` and `wit_world` from the world `task` when it builds the component. See
`README.md` in the parent folder.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, context, log
from wit_world.imports.types import Failure_Reject, Failure_Retry, Message


class Handler(exports.Handler):
    """The exported interface `handler` of the task. The class must have the name of the interface."""

    def handle(self, message: Message) -> None:
        """Handles one message, and turns an uncaught exception into a retry.

        An uncaught exception would end the run with a trap, and the text of the exception would be lost.
        """
        try:
            greet(message)
        except Err:
            raise
        except Exception as error:
            raise Err(Failure_Retry(describe(error))) from None


def greet(message: Message) -> None:
    """Answers a greeting with a log line, and stores a note with the number of words.

    Rejects a greeting without words, because another attempt would fail too.
    """
    body = json.loads(message.body)
    for field in ("from", "text"):
        if field not in body:
            raise Err(Failure_Reject(f"body does not fit the task: missing field `{field}`"))
    words = len(body["text"].split())
    if words == 0:
        raise Err(Failure_Reject(f"`{body['from']}` said nothing"))

    # The value comes from the `[config]` table of the manifest. The value is None if the table does not have
    # the key.
    greeting = config.get("greeting") or "Hello"

    # The log line and the note are stored with the run. `loopabull-host runs show ID` shows both.
    fields = [("topic", message.topic), ("words", str(words))]
    log.write(log.Level.INFO, f"{greeting}, {body['from']}!", fields)
    context.note("words", str(words))


def describe(error: Exception) -> str:
    """Returns the type, the text and the line number of an exception.

    The module `traceback` cannot be used, because it looks for source files, and a component has no file
    system.
    """
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (line {trace.tb_lineno})"
