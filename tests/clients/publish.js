// Publishes events in every layout of streams, each as the service does that writes it. As publish.py.
//
// publish.js URL STREAM FIRST COUNT [LAYOUT…]: events FIRST to FIRST + COUNT - 1 of each layout, in turns; {type} in STREAM
// stands for their type.
'use strict';

const Redis = require('ioredis');
const { KINDS, contents, text } = require('./contents');

const SENDER = 'node';
const now = () => new Date().toISOString();

const LAYOUTS = {
  // The event bus of a checkout choreography.
  payload: (kind, data) => ({ type: kind, payload: text(data), ts: String(Date.now() / 1000) }),

  // An event bus with retries and a dead letter queue.
  aggregate: (kind, data, n) => ({
    type: kind,
    aggregate_id: String(n),
    aggregate_type: 'task',
    data: text(data),
    timestamp: now().replace('Z', ''),
    retries: '0',
  }),

  // A publisher with a schema registry: the payload's own fields beside those of every event.
  event_data: (kind, data, n) => {
    const event = {
      event_id: `${SENDER}-user-${n}`,
      event_type: kind,
      version: 'v1',
      timestamp: now(),
      source_service: 'users-service',
      correlation_id: `request-${n}`,
      user_id: n,
      metadata: { registration_source: 'telegram' },
    };
    return { event_id: event.event_id, event_data: text({ ...event, ...data }), timestamp: event.timestamp };
  },

  cloudevents: (kind, data, n) => ({
    id: `${SENDER}-order-${n}`,
    source: '/orders',
    type: kind,
    time: now(),
    data: text(data),
    correlation_id: `request-${n}`,
    tenant: 'север',
  }),

  // All texts, the data among them.
  service: (kind, data, n) => ({
    event_id: `${SENDER}-invoice-${n}`,
    event_type: kind,
    correlation_id: `request-${n}`,
    timestamp: now(),
    service: 'invoices',
    data: text(data),
  }),

  // A bridge that hands on what it was called with.
  webhook: (kind, data, n) => ({
    event_type: kind,
    payload: text(data),
    event_time: String(Date.now()),
    delivery_attempts: '3',
    trace_id: (n + 1).toString(16).padStart(32, '0'),
    parent_span_id: (n + 1).toString(16).padStart(16, '0'),
  }),
};

async function main() {
  const [url, stream, first, count, ...wanted] = process.argv.slice(2);
  const redis = new Redis(url);
  for (let n = Number(first); n < Number(first) + Number(count); n += 1) {
    for (const [layout, write] of Object.entries(LAYOUTS)) {
      if (wanted.length > 0 && !wanted.includes(layout)) continue;
      const fields = write(KINDS[layout], contents(SENDER, layout, n), n);
      const name = stream.replace('{type}', KINDS[layout]);
      await redis.xadd(name, 'MAXLEN', '~', 10000, '*', ...Object.entries(fields).flat());
    }
  }
  redis.disconnect();
}

main();
