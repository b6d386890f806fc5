"""Publishes to channels, and listens to them, as three services do that have no streams, or not only.

channels.py publish URL COUNT: COUNT events of each service, to identity.patient.created (fire and forget), events:user.registered
(domain events), and user.created (to its stream and to its channel).
channels.py listen URL COUNT: says "listening", then COUNT messages of answers.*, and prints them as a JSON list.
"""

import datetime
import json
import sys
import uuid

import redis

from contents import contents


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def publish_subject(store, n):
    """Fire and forget: the channel is the subject."""
    subject = "identity.patient.created"
    message = {"id": str(uuid.uuid4()), "subject": subject, "timestamp": now(), "data": contents("python", "subject", n)}
    store.publish(subject, json.dumps(message))


def publish_domain(store, n):
    """Domain events on a bus of channels."""
    event = {
        "event_id": f"domain-{n}",
        "event_name": "user.registered",
        "aggregate_id": str(n),
        "occurred_at": datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat(),
        "version": 1,
        "metadata": {"correlation_id": f"request-{n}"},
        "payload": contents("python", "domain", n),
    }
    store.publish("events:user.registered", json.dumps(event))


def publish_event_data(store, n):
    """A schema registry: the same document to a stream and to a channel."""
    event = {
        "event_id": f"user-{n}",
        "event_type": "user.created",
        "version": "v1",
        "timestamp": now(),
        "source_service": "users-service",
        "correlation_id": f"request-{n}",
        "user_id": n,
        "metadata": {},
        **contents("python", "event_data", n),
    }
    text = json.dumps(event)
    store.xadd("events:user.created", {"event_id": event["event_id"], "event_data": text, "timestamp": event["timestamp"]})
    store.publish("events.user.created", text)


def publish(store, count):
    for n in range(count):
        publish_subject(store, n)
        publish_domain(store, n)
        publish_event_data(store, n)


def listen(store, count):
    heard = store.pubsub()
    heard.psubscribe("answers.*")
    messages = []
    for message in heard.listen():
        if message["type"] == "psubscribe":
            print("listening", flush=True)
        if message["type"] == "pmessage":
            messages.append({"channel": message["channel"], "message": json.loads(message["data"])})
        if len(messages) == count:
            break
    print(json.dumps(messages))


def main():
    what, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = redis.Redis.from_url(url, decode_responses=True)
    {"publish": publish, "listen": listen}[what](store, count)


main()
