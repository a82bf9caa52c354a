"""Publishes a persistent message for each id on standard input. Prints `attempted ID` before it
publishes, and `confirmed ID` once the broker has confirmed. Unconfirmed messages are not published again,
because each id must be published only once.

The arguments are the URL of the broker, the durable queue, the exchange, and the routing key. The script also
declares and binds the queue, so that the queue exists before the first message.
"""

import json
import sys
import time

import pika

url, queue, exchange, key = sys.argv[1:]


def connect():
    """Returns a channel with publisher confirms, once a broker accepts the connection."""
    while True:
        try:
            channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
            channel.queue_declare(queue=queue, durable=True)
            channel.queue_bind(queue=queue, exchange=exchange, routing_key=key)
            channel.confirm_delivery()
            return channel
        except pika.exceptions.AMQPError as error:
            print(f"cannot connect: {error!r}", file=sys.stderr, flush=True)
            time.sleep(0.5)


def main():
    channel = connect()
    persistent = pika.BasicProperties(
        delivery_mode=pika.DeliveryMode.Persistent, content_type="application/json"
    )
    for line in sys.stdin:
        id = line.strip()
        body = json.dumps({"topic": key, "msg_id": id, "msg": {}}).encode()
        print("attempted", id, flush=True)
        try:
            channel.basic_publish(exchange, key, body, persistent, mandatory=True)
        except pika.exceptions.AMQPError as error:
            print(f"cannot publish {id}: {error!r}", file=sys.stderr, flush=True)
            if channel.is_closed:
                channel = connect()
            continue
        print("confirmed", id, flush=True)


main()
