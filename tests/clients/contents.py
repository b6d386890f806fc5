"""What events hold that are sent around: by their number, so that whoever reads them knows what was sent. As contents.js."""

import json

# Layout of the entry, and the type of event that a service publishes in it.
KINDS = {
    "payload": "checkout.started",
    "aggregate": "task.created",
    "event_data": "user.created",
    "cloudevents": "order.placed",
    "service": "invoice.sent",
    "webhook": "hook.called",
}


def contents(sender, layout, n):
    return {
        "from": sender,
        "layout": layout,
        "n": n,
        "text": f"Заказ № {n}: «готов к выдаче»",
        "emoji": "🌙🚀👩‍🔧",
        "tags": [],
        "nothing": None,
        "nested": {"empty": {}, "lists": [[], {}, [[]]]},
        "beyond": 2**53 + 1 + n,
        "least": -(2**63),
        "huge": 123456789012345678901234567890,
        "price": 0.1,
    }


def text(value):
    return json.dumps(value, ensure_ascii=False)


def exact(text):
    """JSON with numbers as they were written."""
    return json.loads(text, parse_int=lambda digits: "#" + digits, parse_float=lambda digits: "#" + digits)
