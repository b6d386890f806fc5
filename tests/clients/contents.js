// What events hold that are sent around: by their number, so that whoever reads them knows what was sent. As contents.py.
'use strict';

// Layout of the entry, and the type of event that a service publishes in it.
const KINDS = {
  payload: 'checkout.started',
  aggregate: 'task.created',
  event_data: 'user.created',
  cloudevents: 'order.placed',
  service: 'invoice.sent',
  webhook: 'hook.called',
};

function contents(sender, layout, n) {
  return {
    from: sender,
    layout,
    n,
    text: `Заказ № ${n}: «готов к выдаче»`,
    emoji: '🌙🚀👩‍🔧',
    tags: [],
    nothing: null,
    nested: { empty: {}, lists: [[], {}, [[]]] },
    beyond: 2n ** 53n + 1n + BigInt(n),
    least: -(2n ** 63n),
    huge: 123456789012345678901234567890n,
    price: 0.1,
  };
}

// JSON of all numbers, however large.
function text(value) {
  const large = (_, value) => (typeof value === 'bigint' ? `@${value}@` : value);
  return JSON.stringify(value, large).replace(/"@(-?\d+)@"/g, '$1');
}

// What JSON says, with numbers as they were written.
function exact(text) {
  const token = /"(?:\\.|[^"\\])*"|-?\d[\d.eE+-]*/g;
  return JSON.parse(text.replace(token, (found) => (found[0] === '"' ? found : `"#${found}"`)));
}

module.exports = { KINDS, contents, exact, text };
