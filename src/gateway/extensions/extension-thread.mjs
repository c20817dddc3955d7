/**
 * What runs in a thread of its own: the application's handlers (extensions.ts tells it what to call).
 *
 * What must hold: the thread says that a call has begun before its handler runs, so that the gateway knows what a handler that
 * hangs has taken with it; whatever a handler does wrong is told as text, and the thread goes on. Plain JavaScript, since a
 * thread is started from a file as it is.
 */

import { Buffer } from 'node:buffer';
import process from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';

/** Codes that a handler may refuse with; anything else that is thrown is a fault. */
const codes = ['bad_request', 'forbidden', 'not_found', 'rate_limited', 'too_large'];
/** Bytes of an answer, as JSON. */
const answerBytes = 65_536;

const handlers = new Map();
/** What was asked of the gateway and is not answered yet. */
const asked = new Map();
let asks = 0;

const tell = (message) => parentPort.postMessage(message);
const messageOf = (error) => (error instanceof Error ? (error.stack ?? error.message) : String(error));

// A promise that a handler forgot must not end the thread of the others.
process.on('unhandledRejection', (error) => tell({ kind: 'trouble', message: messageOf(error) }));
process.on('uncaughtException', (error) => tell({ kind: 'trouble', message: messageOf(error) }));

parentPort.on('message', (message) => {
  if (message.kind === 'ping') tell({ kind: 'pong' });
  else if (message.kind === 'call') begin(message);
  else settle(message);
});

/**
 * Calls begin one after the other, each in a turn of its own, the first when the module is loaded: what a handler answers at once is told before
 * the next one may exit or block, and with it everything that was begun.
 */
let turn = load();

function begin({ id, event, call }) {
  turn = turn.then(() => {
    void run(id, event, call);
    return setImmediate();
  });
}

async function load() {
  try {
    const module = await import(pathToFileURL(workerData.file).href);
    for (const [event, handler] of Object.entries(module.default ?? {})) {
      if (typeof handler !== 'function') throw new TypeError(`the handler of ${event} is no function`);
      handlers.set(event, handler);
    }
    if (handlers.size === 0) throw new TypeError('it has no default export with functions, one per event');
    tell({ kind: 'ready', events: [...handlers.keys()] });
  } catch (error) {
    tell({ kind: 'unusable', message: error instanceof Error ? error.message : String(error) });
  }
}

async function run(id, event, call) {
  tell({ kind: 'begun', id });
  try {
    const answer = await handlers.get(event)(call, toolsFor(id));
    const text = JSON.stringify(answer ?? null);
    if (text === undefined) throw new TypeError('the answer has no form in JSON');
    if (Buffer.byteLength(text) > answerBytes) throw new RangeError(`the answer is longer than ${answerBytes} bytes`);
    tell({ kind: 'answer', id, text });
  } catch (error) {
    const code = error instanceof Error ? error.code : undefined;
    if (codes.includes(code)) tell({ kind: 'refused', id, code, message: String(error.message) });
    else tell({ kind: 'failed', id, message: messageOf(error) });
  }
}

/** What a handler may do besides answering; all of it happens in the gateway. */
function toolsFor(id) {
  const ask = (what, args) =>
    new Promise((resolve, reject) => {
      asked.set(++asks, { resolve, reject });
      tell({ kind: 'ask', id, ask: asks, what, args });
    });
  return Object.freeze({
    broadcast: (channel, event, data = {}) => ask('broadcast', { channel, event, data }),
    notify: (userId, type, message, data = {}) => ask('notify', { userId, type, message, data }),
    refuse: (code, message) => {
      if (!codes.includes(code)) throw new TypeError(`refuse: the code must be one of ${codes.join(', ')}`);
      throw Object.assign(new Error(message), { code });
    },
  });
}

function settle({ ask, value, error }) {
  const waiting = asked.get(ask);
  asked.delete(ask);
  if (error === undefined) waiting?.resolve(value);
  else waiting?.reject(new Error(error));
}
