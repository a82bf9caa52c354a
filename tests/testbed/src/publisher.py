"""Publishes the messages on standard input with the real fedmsg library.

Each line is a JSON object with "modname", "topic", "msg" and "count". The script answers each line with the
JSON list of the msg_ids. The first line of its output is "ready", which says that the socket is bound.
The configuration is read from `fedmsg.d` in the current folder.
"""

import json
import sys

import fedmsg


def main():
    fedmsg.init(name="bench.localhost")
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        ids = []
        for _ in range(command["count"]):
            fedmsg.publish(
                modname=command["modname"],
                topic=command["topic"],
                msg=command["msg"],
                pre_fire_hook=lambda message: ids.append(message["msg_id"]),
            )
        print(json.dumps(ids), flush=True)


main()
