"""Publishes messages of a kilobyte to a durable queue: URL QUEUE EXCHANGE ROUTING_KEY COUNT."""

import json
import sys

import pika

url, queue, exchange, key, count = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
channel.queue_declare(queue, durable=True)
channel.queue_bind(queue, exchange, key)
channel.confirm_delivery()
body = {"topic": key, "msg_id": "2026-1", "timestamp": 1, "i": 1, "msg": {"text": "x" * 1000}}
for _ in range(int(count)):
    channel.basic_publish(exchange, key, json.dumps(body), pika.BasicProperties(delivery_mode=2))
