// The shop: publishes what its clients want to buy to the stream of the checkout choreography. As shop.py.
//
// shop.js URL: reads a list of checkouts, each with checkout_id (null: it is forgotten), client_id, produits (id and quantity)
// and times (how often it is sent).
'use strict';

const fs = require('node:fs');
const Redis = require('ioredis');

const STREAM = 'ecommerce.checkout.events';

function initiated(checkout) {
  const produits = checkout.produits.map(([produit_id, quantite]) => ({
    produit_id,
    nom_produit: `Produit ${produit_id} – édition d’été`,
    quantite,
    prix_unitaire: 19.99,
    prix_total: 19.99 * quantite,
  }));
  return {
    checkout_id: checkout.checkout_id ?? undefined,
    client_id: checkout.client_id,
    panier: {
      client_id: checkout.client_id,
      nombre_articles: produits.length,
      total: produits.reduce((sum, produit) => sum + produit.prix_total, 0),
      produits,
    },
    emitted_at: Date.now() / 1000,
  };
}

async function main() {
  const redis = new Redis(process.argv[2]);
  for (const checkout of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    for (let time = 0; time < checkout.times; time += 1) {
      const payload = JSON.stringify(initiated(checkout));
      const fields = ['type', 'CheckoutInitiated', 'payload', payload, 'ts', String(Date.now() / 1000)];
      await redis.xadd(STREAM, 'MAXLEN', '~', 10000, '*', ...fields);
    }
  }
  redis.disconnect();
}

main();
