"""Two consumers: of notifications, whose event bus writes aggregates, and of users, whose events are flat documents.

consumer.py URL COUNT: handles COUNT of each, and says so.
"""

import sys

import redis

from contents import contents, exact, text
from read import consume


def notification(fields):
    """What the notification service's handler expects of an event."""
    assert fields["type"] == "notification.sent" and fields["aggregate_type"] == "notification", fields
    data = exact(fields["data"])
    assert fields["aggregate_id"] == data["n"][1:] and fields["retries"] == "0", fields
    assert data == {name: exact(text(contents("", "", int(data["n"][1:]))))[name] for name in ("n", "text", "tags")}, data
    return int(data["n"][1:])


def user(fields):
    """What the schema registry demands of a document."""
    event = exact(fields["event_data"])
    assert event["event_type"] == "user.notified" and event["version"] == "v1" and event["source_service"], event
    assert event["event_id"] == fields["event_id"] and event["timestamp"] == fields["timestamp"], fields
    assert event["metadata"] is not None and event["correlation_id"] and event["tags"] == [], event
    n = int(event["user_id"][1:])
    assert event["beyond"] == f"#{2**53 + 1 + n}", event
    return n


if __name__ == "__main__":
    client = redis.Redis.from_url(sys.argv[1], decode_responses=True, protocol=2)
    told = [notification(fields) for _, fields in consume(client, "events:notification.sent")]
    users = [user(fields) for _, fields in consume(client, "events:user.notified")]
    expected = sorted(list(range(int(sys.argv[2]) // 2)) * 2)
    assert sorted(told) == sorted(users) == expected, (told, users)
    assert client.xpending("events:notification.sent", "notifications_service")["pending"] == 0
    print(f"{len(told)} notifications, {len(users)} users")
