/**
 * A TCP proxy that can misbehave as networks do: go silent without closing, cut every connection, be slow.
 * It stands between Belfry and Postgres (or Redis, or a browser) in tests of half-open connections.
 */
import { connect, createServer, type Socket } from 'node:net';

export interface Proxy {
  /** Where it listens, on 127.0.0.1. */
  readonly port: number;
  /** Open connections through it. */
  readonly connections: number;
  /** From now on nothing passes in either direction, nothing is closed, and new connections are accepted but get no answer. */
  pause(): void;
  /** What was held back passes now, in order. */
  resume(): void;
  /** Cuts all open connections on both sides with RST. New ones work. */
  reset(): void;
  /** Every chunk waits this long in each direction; 0 for none. */
  delay(ms: number): void;
  /** Chunks are cut into pieces of so many bytes, one every 5 ms in each direction; 0 for whole chunks at once. */
  slow(bytes: number): void;
  /** Cuts everything and stops listening. */
  close(): Promise<void>;
}

export async function startProxy(target: { readonly host: string; readonly port: number }): Promise<Proxy> {
  const links = new Set<Link>();
  let paused = false;
  let delayMs = 0;
  let pieceBytes = 0;
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (near) => {
    const far = connect({ ...target, noDelay: true, allowHalfOpen: true });
    const link: Link = { near, far, lanes: [lane(near, far), lane(far, near)] };
    links.add(link);
    const forget = () => {
      near.destroy();
      far.destroy();
      links.delete(link);
    };
    for (const socket of [near, far]) {
      // A side that was cut takes the other with it, unless the network is meant to be silent.
      socket.on('error', () => undefined);
      socket.on('close', () => (paused ? undefined : forget()));
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');

  /** One direction: chunks wait in a queue until they may pass; null is the end of the stream. */
  function lane(from: Socket, to: Socket): Lane {
    const queue: { readonly chunk: Buffer | null; readonly dueAt: number }[] = [];
    let timer: NodeJS.Timeout | undefined;
    const flush = () => {
      clearTimeout(timer);
      timer = undefined;
      while (!paused && queue[0] !== undefined) {
        const wait = queue[0].dueAt - Date.now();
        if (wait > 0) {
          timer = setTimeout(flush, wait);
          return;
        }
        const { chunk } = queue[0];
        queue.shift();
        if (chunk === null) to.end();
        else if (!to.destroyed) to.write(chunk);
      }
    };
    const take = (chunk: Buffer | null) => {
      const dueAt = Date.now() + delayMs;
      if (chunk === null || pieceBytes === 0) queue.push({ chunk, dueAt });
      else {
        const after = Math.max(dueAt, queue.at(-1)?.dueAt ?? 0);
        for (let at = 0, n = 1; at < chunk.length; at += pieceBytes, n++) {
          queue.push({ chunk: chunk.subarray(at, at + pieceBytes), dueAt: after + n * pieceMs });
        }
      }
      flush();
    };
    from.on('data', take);
    from.on('end', () => take(null));
    return { flush };
  }

  const cut = () => {
    for (const { near, far } of links) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
    links.clear();
  };
  return {
    port: address.port,
    get connections() {
      return links.size;
    },
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
      for (const { near, far, lanes } of links) {
        for (const { flush } of lanes) flush();
        if (near.destroyed || far.destroyed) {
          near.destroy();
          far.destroy();
        }
      }
    },
    reset: cut,
    delay(ms) {
      delayMs = ms;
    },
    slow(bytes) {
      pieceBytes = bytes;
    },
    async close() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const pieceMs = 5;

interface Lane {
  readonly flush: () => void;
}

interface Link {
  readonly near: Socket;
  readonly far: Socket;
  readonly lanes: readonly Lane[];
}
