"""Reads configuration files with the real fedora_messaging package.

Each line of standard input is the path of a file. The answer is a line of JSON: the requests that a
consumer would send to a broker, as determined by the package's own code without a broker, or an
"error".
"""

import json
import sys
from urllib.parse import quote

import pika
from fedora_messaging import config
from fedora_messaging.twisted import factory
from twisted.internet import defer


class Protocol:
    """A fake connection that records the requests."""

    def __init__(self):
        self.queues = []

    def declare_queue(self, queue):
        queue = dict(queue)
        queue.setdefault("passive", config.conf["passive_declares"])
        self.queues.append({"queue": queue, "bindings": []})
        return defer.succeed(queue["queue"])

    def bind_queues(self, bindings):
        for binding in bindings:
            binding = dict(binding)
            assert set(binding) <= {"queue", "exchange", "routing_key", "arguments"}, binding
            self.queues[-1]["bindings"].append([binding["exchange"], binding["routing_key"]])
        return defer.succeed(None)

    def consume(self, callback, queue):
        self.queues[-1]["prefetch"] = config.conf["qos"]["prefetch_count"]
        return defer.succeed(None)


def consume(path):
    config.conf.clear()
    conf = config.conf.load_config(path)
    url = pika.URLParameters(conf["amqp_url"])
    protocol = Protocol()
    consumer = factory.FedoraMessagingFactoryV2(url)
    consumer.when_connected = lambda: defer.succeed(protocol)
    result = []
    consumer.consume(print, conf["bindings"], conf["queues"]).addBoth(result.append)
    if not isinstance(result[0], list):
        result[0].raiseException()
    known = {"queue", "passive", "durable", "auto_delete", "exclusive", "arguments"}
    for queue in protocol.queues:
        assert set(queue["queue"]) <= known, queue
        # The arguments must be of types that pika can encode.
        pika.data.encode_table([], queue["queue"]["arguments"])
    tls = conf["tls"]
    properties = dict(conf["client_properties"])
    # AMQP has lists. Our connections have only texts.
    for name, value in properties.items():
        if isinstance(value, list):
            properties[name] = ", ".join(map(str, value))
    host = f"[{url.host}]" if ":" in url.host else url.host
    for name in ("product", "information", "version"):
        del properties[name]
    if properties.get("app") == "Unknown":
        del properties["app"]
    return {
        "broker": f"{host}:{url.port}/{quote(url.virtual_host, safe='')}",
        "tls": [tls["ca_cert"], tls["keyfile"], tls["certfile"]],
        "client_properties": properties,
        "queues": sorted(protocol.queues, key=lambda queue: queue["queue"]["queue"]),
    }


for line in sys.stdin:
    try:
        answer = consume(line.rstrip("\n"))
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
