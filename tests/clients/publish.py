"""Publishes events in every layout of streams, each as the service does that writes it. As publish.js.

publish.py URL STREAM FIRST COUNT [LAYOUT…]: events FIRST to FIRST + COUNT - 1 of each layout, in turns; {type} in STREAM
stands for their type.
"""

import datetime
import json
import sys
import time

import redis

from contents import KINDS, contents, text

SENDER = "python"


def payload(kind, data, n):
    """The event bus of a checkout choreography."""
    return {"type": kind, "payload": json.dumps(data), "ts": str(time.time())}


def aggregate(kind, data, n):
    """An event bus with retries and a dead letter queue."""
    return {
        "type": kind,
        "aggregate_id": str(n),
        "aggregate_type": "task",
        "data": text(data),
        "timestamp": datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat(),
        "retries": "0",
    }


def event_data(kind, data, n):
    """A publisher with a schema registry: the payload's own fields beside those of every event."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    event = {
        "event_id": f"{SENDER}-user-{n}",
        "event_type": kind,
        "version": "v1",
        "timestamp": now,
        "source_service": "users-service",
        "correlation_id": f"request-{n}",
        "user_id": n,
        "metadata": {"registration_source": "telegram"},
    }
    return {"event_id": event["event_id"], "event_data": text({**event, **data}), "timestamp": now}


def cloudevents(kind, data, n):
    return {
        "id": f"{SENDER}-order-{n}",
        "source": "/orders",
        "type": kind,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "data": text(data),
        "correlation_id": f"request-{n}",
        "tenant": "север",
    }


def service(kind, data, n):
    """All texts, the data among them."""
    return {
        "event_id": f"{SENDER}-invoice-{n}",
        "event_type": kind,
        "correlation_id": f"request-{n}",
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "service": "invoices",
        "data": text(data),
    }


def webhook(kind, data, n):
    """A bridge that hands on what it was called with."""
    return {
        "event_type": kind,
        "payload": text(data),
        "event_time": str(int(time.time() * 1000)),
        "delivery_attempts": "3",
        "trace_id": f"{n + 1:032x}",
        "parent_span_id": f"{n + 1:016x}",
    }


LAYOUTS = [payload, aggregate, event_data, cloudevents, service, webhook]

if __name__ == "__main__":
    url, stream, first, count = sys.argv[1:5]
    wanted = sys.argv[5:] or list(KINDS)
    client = redis.Redis.from_url(url, decode_responses=True)
    for n in range(int(first), int(first) + int(count)):
        for layout in (layout for layout in LAYOUTS if layout.__name__ in wanted):
            kind = KINDS[layout.__name__]
            fields = layout(kind, contents(SENDER, layout.__name__, n), n)
            client.xadd(stream.replace("{type}", kind), fields, maxlen=10000, approximate=True)
