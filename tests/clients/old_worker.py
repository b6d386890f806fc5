"""A worker as services have them that Moontide takes over from: a consumer of a group that reads ten entries, handles each,
and acknowledges. What it handled it writes down in the list old:CONSUMER, before it acknowledges.
"""

import argparse
import json
import time

import redis

parser = argparse.ArgumentParser()
for name in ("url", "stream", "group", "consumer"):
    parser.add_argument(name)
parser.add_argument("--pause", type=float, default=0, help="seconds that each event takes")
parser.add_argument("--acknowledge", choices=["each", "batch", "never"], default="each")
parser.add_argument("--own-first", action="store_true", help="begin with what is pending for this consumer")
options = parser.parse_args()

client = redis.Redis.from_url(options.url, decode_responses=True, client_name=options.consumer)


def read(after):
    found = client.xreadgroup(options.group, options.consumer, {options.stream: after}, count=10, block=1000)
    return [entry for _, entries in found for entry in entries]


def handle(fields):
    number = json.loads(fields["data"])["n"]
    time.sleep(options.pause)
    client.rpush(f"old:{options.consumer}", number)


def work(entries):
    for entry, fields in entries:
        handle(fields)
        if options.acknowledge == "each":
            client.xack(options.stream, options.group, entry)
    if options.acknowledge == "batch":
        client.xack(options.stream, options.group, *(entry for entry, _ in entries))


try:
    client.xgroup_create(options.stream, options.group, id="0", mkstream=True)
except redis.ResponseError as error:
    if not str(error).startswith("BUSYGROUP"):
        raise

while options.own_first and (entries := read("0")):
    work(entries)
while True:
    work(read(">"))
