"""Reads events in every layout, each as the service does that consumes it, and compares them with what was published. As read.js.

read.py URL STREAM COUNT OUT: COUNT events lie in STREAM, in whatever layout; OUT with {layout} in it names the streams to
which a handler has emitted each of them again.
"""

import sys

import redis

from contents import KINDS, contents, exact, text


def payload(fields):
    return fields.get("id"), fields["type"], fields["payload"], fields.get("correlation_id"), fields


def aggregate(fields):
    assert fields["retries"] == "0" and fields["timestamp"].count(":") == 2 and not fields["timestamp"].endswith("Z"), fields
    assert "aggregate_type" in fields, fields
    return fields.get("id"), fields["type"], fields["data"], fields.get("correlation_id"), fields


def event_data(fields):
    event = exact(fields["event_data"])
    assert event["event_id"] == fields["event_id"] and event["timestamp"] and event["version"] == "v1", fields
    ext = {**event["metadata"], **event}
    return event["event_id"], event["event_type"], fields["event_data"], event.get("correlation_id"), ext


def cloudevents(fields):
    assert fields["source"] and fields["time"], fields
    return fields["id"], fields["type"], fields["data"], fields.get("correlation_id"), fields


def service(fields):
    assert fields["service"] and fields["timestamp"], fields
    return fields["event_id"], fields["event_type"], fields["data"], fields.get("correlation_id"), fields


def webhook(fields):
    assert 1_600_000_000_000 < int(fields["event_time"]) < 10_000_000_000_000, fields
    return fields.get("id"), fields["event_type"], fields["payload"], fields.get("correlation_id"), fields


LAYOUTS = {layout.__name__: layout for layout in (payload, aggregate, event_data, cloudevents, service, webhook)}

# What an event carries besides, in every layout that has it.
BESIDES = {
    "aggregate": lambda n: {"aggregate_id": str(n), "aggregate_type": "task"},
    "event_data": lambda n: {"version": "v1"},
    "cloudevents": lambda n: {"tenant": "север"},
    "service": lambda n: {},
    "webhook": lambda n: {"delivery_attempts": "3"},
    "payload": lambda n: {},
}


def layout_of(fields):
    """Which service wrote an entry, where several write to one stream."""
    for layout, field in (("event_data", "event_data"), ("service", "service"), ("webhook", "event_time")):
        if field in fields:
            return layout
    if "payload" in fields:
        return "payload"
    return "aggregate" if "aggregate_id" in fields else "cloudevents"


def history(client, stream):
    """An event store reads the stream itself."""
    return client.xrange(stream, "-", "+")


def consume(client, stream):
    """A consumer reads as a member of a group, and acknowledges what it has handled."""
    group, consumer = "notifications_service", "consumer-1"
    client.xgroup_create(stream, group, id="0", mkstream=True)
    entries = []
    while True:
        answer = client.xreadgroup(group, consumer, {stream: ">"}, count=50)
        if not answer:
            return entries
        for entry_id, fields in answer[0][1]:
            entries.append((entry_id, fields))
            client.xack(stream, group, entry_id)


def originals(client, stream):
    """By their ids: type, text of the data, correlation, the rest, and what it should have been."""
    events = {}
    for entry, fields in history(client, stream):
        if "envelope" in fields or "malformed" in fields:
            continue
        layout = layout_of(fields)
        event_id, kind, data, correlation, rest = LAYOUTS[layout](fields)
        said = exact(data)
        expected = exact(text(contents(said["from"], layout, int(said["n"][1:]))))
        assert kind == KINDS[layout] and said.items() >= expected.items(), (fields, expected)
        events[event_id or f"{stream}/{entry}"] = (layout, kind, data, correlation, rest, expected)
    return events


def compare(original, layout, found):
    came_as, kind, data, correlation, rest, expected = original
    _, found_kind, found_data, found_correlation, found_rest = found
    n = int(expected["n"][1:])
    said = exact(found_data)
    assert found_kind == kind, (found_kind, kind)
    assert said.items() >= expected.items(), (said, expected)
    assert ("rebuilt" in said) == (n % 2 == 1), said
    if "event_data" not in (came_as, layout):
        assert said.keys() - {"rebuilt"} == expected.keys(), said
        # Passed on as it came: byte for byte.
        assert n % 2 == 1 or found_data == data, (found_data, data)
    assert correlation is None or found_correlation == correlation, (found_correlation, correlation)
    besides = BESIDES[came_as](n)
    assert found_rest.items() >= besides.items(), (found_rest, besides)
    if came_as == layout == "webhook":
        assert all(found_rest[name] == rest[name] for name in ("trace_id", "parent_span_id")), (found_rest, rest)


if __name__ == "__main__":
    url, stream, count, out = sys.argv[1:5]
    client = redis.Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape", protocol=2)
    events = originals(client, stream)
    assert len(events) == int(count), len(events)
    for layout, read in LAYOUTS.items():
        name = out.replace("{layout}", layout)
        entries = consume(client, name) if layout in ("aggregate", "event_data") else history(client, name)
        found = [read(fields) for _, fields in entries]
        assert sorted(event[0] for event in found) == sorted(events), f"{name} has other events than {stream}"
        for event in found:
            compare(events[event[0]], layout, event)
