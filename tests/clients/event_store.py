"""The event store: reads the stream of the checkout choreography and its projection, and holds them against what was published.

event_store.py URL DEAD: reads a plan, { stock, checkouts }: units of each product at the beginning, and checkouts as the
shop's, each with `ends`: null (a dead letter) or how it may end, "succeeded" or a reason. Prints how they ended.
"""

import collections
import json
import sys

import redis

STREAM = "ecommerce.checkout.events"

# What follows a checkout, however it ends.
SUCCEEDED = ["CheckoutInitiated", "CheckoutSucceeded", "OrderCreated", "StockReserved"]
RESERVATION_FAILED = ["CheckoutFailed", "CheckoutInitiated", "StockReservationFailed"]
ORDER_FAILED = ["CheckoutFailed", "CheckoutInitiated", "OrderCreationFailed", "StockReleased", "StockReserved"]

# The fields of each payload, besides emitted_at.
PAYLOADS = {
    "CheckoutInitiated": {"checkout_id", "client_id", "panier"},
    "StockReserved": {"checkout_id", "client_id", "panier"},
    "StockReservationFailed": {"checkout_id", "reason"},
    "OrderCreated": {"checkout_id", "commande_id", "client_id"},
    "CheckoutSucceeded": {"checkout_id", "commande_id"},
    "OrderCreationFailed": {"checkout_id", "reason"},
    "StockReleased": {"checkout_id"},
    "CheckoutFailed": {"checkout_id", "reason"},
}


class EventStore:
    def __init__(self, url):
        self.client = redis.Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape")

    def stream(self, name):
        """Events as they lie there; what is no event is left out."""
        events = []
        for _, fields in self.client.xrange(name, "-", "+"):
            try:
                payload = json.loads(fields["payload"])
            except (KeyError, ValueError):
                continue
            events.append({"type": fields["type"], "payload": payload, "ts": float(fields["ts"])})
        return events

    def replay(self, events):
        """The state of one checkout, from its events."""
        state = {"status": "initiated", "reason": None}
        for event in events:
            if event["type"] == "CheckoutSucceeded":
                state = {"status": "succeeded", "reason": None, "commande_id": event["payload"]["commande_id"]}
            elif event["type"] == "CheckoutFailed":
                state = {"status": "failed", "reason": event["payload"]["reason"]}
        return state

    def orders_by_client(self, client_id):
        row = self.client.get(f"cqrs:orders_by_client:{client_id}")
        return json.loads(row) if row else None

    def number(self, key):
        return json.loads(self.client.get(key) or "0")


def check_events(by_checkout, checkouts):
    """Each checkout has ended once, in a way that it may end, and all that belongs to that is there once."""
    ended = {}
    for checkout in checkouts:
        events = by_checkout.get(checkout["checkout_id"], [])
        state = EventStore.replay(None, events)
        outcome = "succeeded" if state["status"] == "succeeded" else state["reason"]
        assert outcome in checkout["ends"], (checkout, state)
        if outcome == "succeeded":
            expected = SUCCEEDED
        else:
            expected = ORDER_FAILED if outcome == "client_barred" else RESERVATION_FAILED
        again = ["CheckoutInitiated"] * (checkout["times"] - 1)
        assert sorted(event["type"] for event in events) == sorted(expected + again), (checkout, events)
        ended[checkout["checkout_id"]] = state
    return ended


def check_stock(store, stock, checkouts, ended):
    """No unit is lost, or sold twice."""
    sold = collections.Counter()
    for checkout in checkouts:
        if ended[checkout["checkout_id"]]["status"] == "succeeded":
            for produit_id, quantite in checkout["produits"]:
                sold[produit_id] += quantite
    for produit_id, units in stock.items():
        left = store.number(f"stock:{produit_id}")
        assert store.number(f"sold:{produit_id}") == sold[produit_id], (produit_id, sold)
        assert left >= 0 and left + sold[produit_id] == units, (produit_id, units, left, sold)
    assert not list(store.client.scan_iter("reserved:*")), "nothing is held that was decided"


def check_projection(store, by_checkout, checkouts, ended):
    for client_id in {checkout["client_id"] for checkout in checkouts}:
        ids = [one["checkout_id"] for one in checkouts if one["client_id"] == client_id]
        ids = [checkout_id for checkout_id in ids if ended[checkout_id]["status"] == "succeeded"]
        row = store.orders_by_client(client_id)
        if not ids:
            assert row is None, row
            continue
        assert row.keys() == {"total_orders", "last_order_id", "last_checkout_id", "last_update_ts"}, row
        made = {
            event["payload"]["emitted_at"]: event["payload"]
            for checkout_id in ids
            for event in by_checkout[checkout_id]
            if event["type"] == "OrderCreated"
        }
        last = made[max(made)]
        assert row["total_orders"] == len(ids), (row, ids)
        assert row["last_update_ts"] == last["emitted_at"], (row, made)
        assert row["last_order_id"] == ended[row["last_checkout_id"]]["commande_id"], row


def check_dead(store, dead, raw, without_id):
    """What must be among the dead letters, and nothing else, as it lay in the stream."""
    expected = collections.Counter({("stock_reservation", "invalid"): without_id})
    for fields in raw:
        wanted = {"stock_reservation", "audit"} if "type" in fields else {
            "notification", "audit", "stock_reservation", "order_creation", "stock_compensation", "cqrs_projection"
        }
        expected.update((handler, "undecodable") for handler in wanted)
    original = dict(store.client.xrange(STREAM, "-", "+"))
    found = collections.Counter()
    for _, letter in store.client.xrange(dead, "-", "+"):
        assert letter["stream"] == STREAM and letter["attempts"] == "1" and letter["error"] and letter["failed_at"], letter
        assert letter.items() >= original[letter["original_id"]].items(), letter
        found[letter["handler"], letter["reason"]] += 1
    assert found == expected, (found, expected)


def check_followers(store, events):
    """The audit has counted everything, and every end was told."""
    types = collections.Counter(event["type"] for event in events)
    for kind, count in types.items():
        assert store.number(f"audit:count:{kind}") == count, (kind, count)
    asked = [json.loads(fields["data"]) for _, fields in store.client.xrange("events:NotificationRequested", "-", "+")]
    assert len({one["checkout_id"] for one in asked}) == len(asked), "nobody is told twice"
    assert len(asked) == types["CheckoutSucceeded"] + types["CheckoutFailed"], types
    return types


def check(store, dead, plan):
    events = store.stream(STREAM)
    by_checkout = collections.defaultdict(list)
    for event in events:
        names = event["payload"].keys() | {"checkout_id"}
        assert names == PAYLOADS[event["type"]] | {"emitted_at"}, event
        assert abs(event["ts"] - event["payload"]["emitted_at"]) < 60, event
        by_checkout[event["payload"].get("checkout_id")].append(event)
    checkouts = [checkout for checkout in plan["checkouts"] if checkout["ends"] is not None]
    ended = check_events(by_checkout, checkouts)
    check_stock(store, plan["stock"], checkouts, ended)
    check_projection(store, by_checkout, checkouts, ended)
    lying = [fields for _, fields in store.client.xrange(STREAM, "-", "+")]
    raw = [fields for fields in lying if fields.get("payload", "\udcff").startswith("\udcff")]
    check_dead(store, dead, raw, len(plan["checkouts"]) - len(checkouts))
    types = check_followers(store, events)
    return {
        "succeeded": sum(state["status"] == "succeeded" for state in ended.values()),
        "failed": sum(state["status"] == "failed" for state in ended.values()),
        "types": types,
    }


if __name__ == "__main__":
    print(json.dumps(check(EventStore(sys.argv[1]), sys.argv[2], json.load(sys.stdin))))
