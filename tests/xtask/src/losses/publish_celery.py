"""Sends a task to Celery for each id on standard input. Prints `attempted ID` before it publishes,
and `confirmed ID` once the broker has confirmed. Unconfirmed messages are not sent again, because each id
must be sent only once.
"""

import sys

from celery_app import run


def main():
    for line in sys.stdin:
        id = line.strip()
        print("attempted", id, flush=True)
        try:
            run.apply_async((id,), retry=False)
        except Exception as error:
            print(f"cannot publish {id}: {error!r}", file=sys.stderr, flush=True)
            continue
        print("confirmed", id, flush=True)


main()
