"""The shop: publishes what its clients want to buy to the stream of the checkout choreography. As shop.js.

shop.py URL: reads a list of checkouts, each with checkout_id (null: it is forgotten), client_id, produits (id and quantity)
and times (how often it is sent).
"""

import json
import sys
import time

import redis

STREAM = "ecommerce.checkout.events"


def publish(client, kind, payload):
    fields = {"type": kind, "payload": json.dumps(payload), "ts": str(time.time())}
    client.xadd(STREAM, fields, maxlen=10000, approximate=True)


def initiated(checkout):
    produits = [
        {
            "produit_id": produit_id,
            "nom_produit": f"Produit {produit_id} – édition d’été",
            "quantite": quantite,
            "prix_unitaire": 19.99,
            "prix_total": 19.99 * quantite,
        }
        for produit_id, quantite in checkout["produits"]
    ]
    payload = {
        "checkout_id": checkout["checkout_id"],
        "client_id": checkout["client_id"],
        "panier": {
            "client_id": checkout["client_id"],
            "nombre_articles": len(produits),
            "total": sum(produit["prix_total"] for produit in produits),
            "produits": produits,
        },
        "emitted_at": time.time(),
    }
    return {name: value for name, value in payload.items() if value is not None}


if __name__ == "__main__":
    client = redis.Redis.from_url(sys.argv[1])
    for checkout in json.load(sys.stdin):
        for _ in range(checkout["times"]):
            publish(client, "CheckoutInitiated", initiated(checkout))
