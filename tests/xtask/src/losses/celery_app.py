"""The Celery application of `cargo xtask losses`. Its only task writes the same log as the replacement of
ansible-playbook and takes as long.

LOSSES_BROKER is the URL of the broker, and LOSSES_LOG is the path of the log. LOSSES_ACKS is "early" (Celery's
default: a message is acknowledged before its task runs) or "late" (a message is acknowledged after its task,
and requeued if the process dies). LOSSES_QUEUE is "classic" (the
default) or "quorum".
All other settings are Celery's defaults, except that the publisher waits for publisher confirms.
"""

import os
import time

from celery import Celery

LATE = os.environ["LOSSES_ACKS"] == "late"

app = Celery("losses", broker=os.environ["LOSSES_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_acks_late=LATE,
    task_default_queue_type=os.environ["LOSSES_QUEUE"],
    task_ignore_result=True,
    task_reject_on_worker_lost=LATE,
)
log = os.open(os.environ["LOSSES_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def write(*words):
    """Appends a line in one write."""
    os.write(log, (" ".join(str(word) for word in words) + "\n").encode())


@app.task(bind=True, name="losses.run")
def run(self, id):
    """Runs for 20 ms."""
    attempt = 2 if self.request.delivery_info.get("redelivered") else 1
    pid = os.getpid()
    write("start", id, attempt, pid, time.time_ns() // 1_000_000)
    time.sleep(0.02)
    write("end", id, attempt, pid, 0, time.time_ns() // 1_000_000)
