/**
 * A TCP proxy before Postgres that counts the statements of its clients: Query and Execute messages of the frontend
 * protocol, with the text of what was parsed, so that the report can say what an idle process asks.
 */

import { connect, createServer, type AddressInfo } from 'node:net';

const SSL_REQUEST = 80877103;

export interface CountingProxy {
  /** The given URL with the proxy's address. */
  readonly url: string;
  /** Statements since the last call, by their text; numbers and literals are replaced, so that like comes to like. */
  take(): Map<string, number>;
  stop(): Promise<void>;
}

export async function startCountingProxy(url: string): Promise<CountingProxy> {
  const target = new URL(url);
  let counts = new Map<string, number>();
  const server = createServer((client) => {
    const upstream = connect(Number(target.port || 5432), target.hostname);
    const count = counter((raw) => {
      const text = raw.replace(/'[^']*'/g, "'…'").replace(/_[0-9a-f]{8,}/g, '_…');
      counts.set(text, (counts.get(text) ?? 0) + 1);
    });
    client.on('data', count);
    client.pipe(upstream).pipe(client);
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String((server.address() as AddressInfo).port);
  return {
    url: through.toString(),
    take() {
      const taken = counts;
      counts = new Map();
      return taken;
    },
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** Follows one connection's bytes; `found` is called with the text of every statement that is run. */
function counter(found: (text: string) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let started = false;
  const named = new Map<string, string>();
  let unnamed = '';
  let bound = '';
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= (started ? 5 : 8)) {
      const header = started ? 1 : 0;
      const length = rest.readInt32BE(header) + header;
      if (rest.length < length) return;
      const message = rest.subarray(0, length);
      rest = rest.subarray(length);
      if (!started) {
        started = message.readInt32BE(4) !== SSL_REQUEST;
        continue;
      }
      const kind = String.fromCharCode(message[0] ?? 0);
      const body = message.subarray(5);
      if (kind === 'Q') found(cString(body, 0));
      else if (kind === 'P') {
        const name = cString(body, 0);
        const text = cString(body, Buffer.byteLength(name) + 1);
        if (name === '') unnamed = text;
        else named.set(name, text);
      } else if (kind === 'B') {
        const portal = cString(body, 0);
        const name = cString(body, Buffer.byteLength(portal) + 1);
        bound = name === '' ? unnamed : (named.get(name) ?? name);
      } else if (kind === 'E') found(bound);
    }
  };
}

function cString(buffer: Buffer, from: number): string {
  return buffer.toString('utf8', from, buffer.indexOf(0, from));
}
