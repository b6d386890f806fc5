// Reads events in every layout, each as the service does that consumes it, and compares them with what was published. As read.py.
//
// read.js URL STREAM COUNT OUT: COUNT events lie in STREAM, in whatever layout; OUT with {layout} in it names the streams to
// which a handler has emitted each of them again.
'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { KINDS, contents, exact, text } = require('./contents');

// Of an entry's fields: id, type, text of the data, correlation.
const LAYOUTS = {
  payload: (fields) => [fields.id, fields.type, fields.payload, fields.correlation_id],
  aggregate: (fields) => {
    assert.equal(fields.retries, '0');
    assert.ok(!Number.isNaN(Date.parse(`${fields.timestamp}Z`)), fields.timestamp);
    return [fields.id, fields.type, fields.data, fields.correlation_id];
  },
  event_data: (fields) => {
    const event = exact(fields.event_data);
    assert.equal(event.event_id, fields.event_id);
    return [event.event_id, event.event_type, fields.event_data, event.correlation_id];
  },
  cloudevents: (fields) => [fields.id, fields.type, fields.data, fields.correlation_id],
  service: (fields) => [fields.event_id, fields.event_type, fields.data, fields.correlation_id],
  webhook: (fields) => [fields.id, fields.event_type, fields.payload, fields.correlation_id],
};

// Which service wrote an entry, where several write to one stream.
function layoutOf(fields) {
  if (fields.event_data) return 'event_data';
  if (fields.service) return 'service';
  if (fields.event_time) return 'webhook';
  if (fields.payload) return 'payload';
  return fields.aggregate_id ? 'aggregate' : 'cloudevents';
}

function named(flat) {
  const fields = {};
  for (let at = 0; at < flat.length; at += 2) fields[flat[at]] = flat[at + 1];
  return fields;
}

// An event store reads the stream itself.
async function history(redis, stream) {
  const entries = await redis.xrange(stream, '-', '+');
  return entries.map(([id, flat]) => [id, named(flat)]);
}

// A consumer reads as a member of a group, and acknowledges what it has handled.
async function consume(redis, stream) {
  const group = 'node_service';
  await redis.xgroup('CREATE', stream, group, '0', 'MKSTREAM');
  const entries = [];
  for (;;) {
    const answer = await redis.xreadgroup('GROUP', group, 'consumer-1', 'COUNT', 50, 'STREAMS', stream, '>');
    if (!answer) return entries;
    for (const [id, flat] of answer[0][1]) {
      entries.push([id, named(flat)]);
      await redis.xack(stream, group, id);
    }
  }
}

async function originals(redis, stream) {
  const events = new Map();
  for (const [entry, fields] of await history(redis, stream)) {
    if (fields.envelope || fields.malformed) continue;
    const layout = layoutOf(fields);
    const [id, kind, data, correlation] = LAYOUTS[layout](fields);
    const said = exact(data);
    const expected = exact(text(contents(said.from, layout, Number(said.n.slice(1)))));
    assert.equal(kind, KINDS[layout]);
    assert.deepEqual({ ...said, ...expected }, said);
    events.set(id || `${stream}/${entry}`, { layout, kind, data, correlation, expected });
  }
  return events;
}

function compare(original, layout, [, kind, data, correlation]) {
  const said = exact(data);
  const odd = Number(original.expected.n.slice(1)) % 2 === 1;
  assert.equal(kind, original.kind);
  assert.deepEqual({ ...said, ...original.expected }, said);
  assert.equal('rebuilt' in said, odd);
  const flat = layout === 'event_data' || original.layout === 'event_data';
  // Passed on as it came: byte for byte.
  if (!flat && !odd) assert.equal(data, original.data);
  if (original.correlation) assert.equal(correlation, original.correlation);
}

async function main() {
  const [url, stream, count, out] = process.argv.slice(2);
  const redis = new Redis(url);
  const events = await originals(redis, stream);
  assert.equal(events.size, Number(count));
  for (const [layout, read] of Object.entries(LAYOUTS)) {
    const name = out.replace('{layout}', layout);
    const inGroup = layout === 'aggregate' || layout === 'event_data';
    const entries = await (inGroup ? consume : history)(redis, name);
    const found = entries.map(([, fields]) => read(fields));
    assert.deepEqual(found.map(([id]) => id).sort(), [...events.keys()].sort(), `${name} has other events than ${stream}`);
    for (const event of found) compare(events.get(event[0]), layout, event);
  }
  redis.disconnect();
}

main();
