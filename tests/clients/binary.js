// A publisher whose entries are binary, and a reader that knows every byte of them. As binary.py.
//
// binary.js publish URL STREAM FIRST COUNT
// binary.js again URL STREAM OUT: every envelope of STREAM lies in OUT.
'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');

function envelope(n) {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(n);
  return Buffer.concat([Buffer.from([0x08, 0x96, 0x01, 0xff, 0xfe]), number, Buffer.from('Посылка 🌙', 'utf16le')]);
}

async function publish(redis, stream, first, count) {
  for (let n = Number(first); n < Number(first) + Number(count); n += 1) {
    await redis.xadd(stream, '*', 'envelope', envelope(n), 'schema', 'parcel.v1');
  }
}

async function envelopes(redis, stream) {
  const entries = await redis.xrangeBuffer(stream, '-', '+');
  const found = entries.map(([, flat]) => {
    const at = flat.findIndex((part, place) => place % 2 === 0 && part.toString() === 'envelope');
    return at < 0 ? undefined : flat[at + 1].toString('hex');
  });
  return found.filter((data) => data !== undefined).sort();
}

async function again(redis, stream, out) {
  const sent = await envelopes(redis, stream);
  assert.deepEqual(await envelopes(redis, out), sent);
  for (const data of sent) assert.equal(envelope(parseInt(data.slice(10, 18), 16)).toString('hex'), data);
}

async function main() {
  const [does, url, ...rest] = process.argv.slice(2);
  const redis = new Redis(url);
  await { publish, again }[does](redis, ...rest);
  redis.disconnect();
}

main();
