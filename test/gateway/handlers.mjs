/** Handlers for extensions.test.ts: good ones, and every way to be bad. */

let calls = 0;

export default {
  async greet({ userId, channel, data, event, session }, belfry) {
    const offset = await belfry.broadcast(channel, 'greeted', { by: userId, text: data.text });
    return { offset, event, session, calls: ++calls };
  },
  quiet: () => undefined,
  tellOwner: (_call, belfry) => belfry.notify('77', 'message', 'somebody was here', { x: 1 }),
  tellMe: ({ userId }, belfry) => belfry.notify(userId, 'system', 'done'),
  refuse: (_call, belfry) => belfry.refuse('forbidden', 'not on Sundays'),
  throws: () => {
    throw new Error('secret detail');
  },
  rejectsLater: () => {
    void Promise.reject(new Error('forgotten'));
    setTimeout(() => {
      throw new Error('forgotten too');
    });
    return 'answered';
  },
  badBroadcast: (_call, belfry) => belfry.broadcast('post:1', 'badge', {}).catch((error) => error.message),
  hangs: () => new Promise(() => undefined),
  blocks: () => {
    for (;;);
  },
  exits: () => process.exit(3),
  eats: () => {
    const all = [];
    for (;;) all.push(new Array(1e6).fill(1.5));
  },
  huge: () => 'x'.repeat(100_000),
  circular: () => {
    const a = {};
    a.a = a;
    return a;
  },
  prints: () => {
    console.log('hello from a handler');
    return 1;
  },
};
