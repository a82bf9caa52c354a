"""A Dramatiq application whose task writes one byte. `python dramatiq_app.py N` queues N messages of a kilobyte."""

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BENCH_BROKER"]))
log = os.open(os.environ["BENCH_LOG"], os.O_WRONLY | os.O_APPEND)


@dramatiq.actor
def run(body):
    os.write(log, b".")


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        run.send("x" * 1000)
