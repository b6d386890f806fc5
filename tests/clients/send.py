"""Sends events in the three modes of the CloudEvents HTTP binding, as the library writes them, to the URL given."""

import sys

import requests
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

URL = sys.argv[1]
FORMAT = JSONFormat()


def event(mode):
    attributes = {
        "type": "order.sent",
        "source": "/shop",
        "subject": mode,
        "datacontenttype": "application/json",
        "shard": "7",
    }
    return CloudEvent(attributes, {"mode": mode})


def send(headers, body, count):
    answer = requests.post(URL, headers=headers, data=body, timeout=30)
    assert answer.status_code == 202, (answer.status_code, answer.text)
    assert len(answer.json()["ids"]) == count, answer.text


for bind, mode in ((to_binary, "binary €"), (to_structured, "structured €")):
    message = bind(event(mode), FORMAT)
    send(message.headers, message.body, 1)

batch = [FORMAT.write(event(mode)) for mode in ("batched 1", "batched 2")]
send({"Content-Type": "application/cloudevents-batch+json"}, b"[" + b",".join(batch) + b"]", 2)
