"""A Celery application whose task writes one byte. `python celery_app.py N` queues N messages of a kilobyte."""

import os
import sys

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)
log = os.open(os.environ["BENCH_LOG"], os.O_WRONLY | os.O_APPEND)


@app.task(name="bench.run")
def run(body):
    os.write(log, b".")


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        run.delay("x" * 1000)
