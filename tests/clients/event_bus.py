"""An event bus as services have it that share the stream of dead letters: one stream per type, entries of fields.

Arguments: the server's URL, what to do, and with what. Prints what came of it as JSON.
"""

import json
import sys
from datetime import datetime, timezone

import redis

DLQ = "event_dlq"
FIELDS = ("type", "aggregate_id", "aggregate_type", "data", "timestamp")


def now():
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat()


class EventBus:
    def __init__(self, url):
        self.redis = redis.from_url(url, decode_responses=True)

    def task(self, task_id):
        return {
            "type": "task.created",
            "aggregate_id": task_id,
            "aggregate_type": "task",
            "data": json.dumps({"task_id": int(task_id), "title": "Fix bug"}),
            "timestamp": now(),
            "retries": "0",
        }

    def publish(self, task_id):
        fields = self.task(task_id)
        return self.redis.xadd(f"events:{fields['type']}", fields)

    def give_up(self, task_id):
        """What the third failed attempt leads to."""
        fields = {**self.task(task_id), "retries": "3"}
        bookkeeping = {"original_id": "1705319400000-0", "error": "Connection timeout", "failed_at": now()}
        return self.redis.xadd(DLQ, {**fields, **bookkeeping})

    def get_dlq_messages(self):
        return self.redis.xrange(DLQ, "-", "+")

    def reprocess_dlq_message(self, message_id, whole=False):
        messages = self.redis.xrange(DLQ, min=message_id, max=message_id)
        if not messages:
            return None
        _, fields = messages[0]
        event = dict(fields) if whole else {name: fields[name] for name in FIELDS}
        added = self.redis.xadd(f"events:{fields['type']}", {**event, "retries": "0"})
        self.redis.xdel(DLQ, message_id)
        return added

    def reprocess_whole_dlq_message(self, message_id):
        return self.reprocess_dlq_message(message_id, whole=True)


url, action, *arguments = sys.argv[1:]
print(json.dumps(getattr(EventBus(url), action)(*arguments)))
