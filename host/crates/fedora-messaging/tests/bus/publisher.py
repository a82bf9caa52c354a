"""Publishes the messages on standard input with the real fedora_messaging package.

Each line is a JSON object. With "topic" and "body" it is a message of the package, optionally with
"severity" and "headers". With "raw" pika sends the bytes unchanged, for messages that the package
would not send. The answer is a line with the message id. The first line of output is "ready".
"""

import json
import struct
import sys

import pika
from fedora_messaging import api, config, message

config.conf.load_config(sys.argv[1])
SEVERITIES = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def publish(command):
    sent = message.Message(
        topic=command["topic"],
        body=command["body"],
        headers=command.get("headers"),
        severity=SEVERITIES[command.get("severity", "info")],
    )
    if "priority" in command:
        sent.priority = command["priority"]
    api.publish(sent, exchange=command.get("exchange"), timeout=60)
    return sent.id


class Encoded(str):
    """A table value that is already encoded."""

    def __new__(cls, encoded):
        value = super().__new__(cls)
        value.encoded = encoded
        return value


def nested(depth):
    """Returns nested lists. In AMQP only the frame size limits the depth."""
    encoded = b"V"
    for _ in range(depth):
        encoded = b"A" + struct.pack(">I", len(encoded)) + encoded
    return Encoded(encoded)


def encode_value(pieces, value, original=pika.data.encode_value):
    if isinstance(value, Encoded):
        pieces.append(value.encoded)
        return len(value.encoded)
    return original(pieces, value)


pika.data.encode_value = encode_value


def publish_raw(command):
    if "nested" in command:
        command["properties"] = {"headers": {"nested": nested(command["nested"])}}
    connection = pika.BlockingConnection(pika.URLParameters(config.conf["amqp_url"]))
    properties = pika.BasicProperties(**command.get("properties", {}))
    body = bytes.fromhex(command["raw"])
    connection.channel().basic_publish("amq.topic", command["topic"], body, properties)
    connection.close()
    return properties.message_id


print("ready", flush=True)
for line in sys.stdin:
    command = json.loads(line)
    answer = publish_raw(command) if "raw" in command else publish(command)
    print(json.dumps(answer), flush=True)
