"""Publishes each non-empty line on standard input as a persistent message with a publisher confirm.
Answers each empty line with the number of messages that wait in the queue. `rabbitmqctl` is not used for
this, because it takes a second of processor time for each answer.

The arguments are the URL of the broker, the durable queue, the exchange, and the routing key. The script also
declares and binds the queue.
"""

import sys

import pika

url, queue, exchange, key = sys.argv[1:]


def main():
    parameters = pika.URLParameters(url)
    # Heartbeats are off, because the program cannot answer them while it waits for a line.
    parameters.heartbeat = 0
    channel = pika.BlockingConnection(parameters).channel()
    channel.queue_declare(queue=queue, durable=True)
    channel.queue_bind(queue=queue, exchange=exchange, routing_key=key)
    channel.confirm_delivery()
    persistent = pika.BasicProperties(
        delivery_mode=pika.DeliveryMode.Persistent, content_type="application/json"
    )
    for line in sys.stdin:
        body = line.strip()
        if body:
            channel.basic_publish(exchange, key, body.encode(), persistent, mandatory=True)
        else:
            declared = channel.queue_declare(queue=queue, passive=True)
            print(declared.method.message_count, flush=True)


main()
