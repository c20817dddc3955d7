/**
 * How statements go out over a connection that several parts share, and how one is let go.
 *
 * What must hold: each statement has its own answer, in the order in which they were asked; nobody waits for an answer, or a goodbye, on a socket
 * that fell silent.
 */

import type { Writable } from 'node:stream';
import type pg from 'pg';

/**
 * Several parts may share a connection, so its statements wait for each other here: pg's own queue warns on stderr of its end
 * (pg 9) as soon as two of them wait. Promises alone: nobody here passes a callback.
 */
export function inTurn(client: pg.Client): pg.Client {
  const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
  let last: Promise<unknown> = Promise.resolve();
  const queued = (...args: unknown[]): Promise<unknown> => {
    const answer = last.then(() => query(...args));
    last = answer.catch(() => undefined);
    return answer;
  };
  client.query = queued as typeof client.query;
  return client;
}

/** A write costs some 50 us of CPU, most of it for waking the server's process: what is asked in one turn goes out with one. */
export function inOneWrite(client: pg.Client): pg.Client {
  const connection = connectionOf(client);
  const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
  let corked = false;
  let unanswered = 0;
  const together = (...args: unknown[]): Promise<unknown> => {
    if (!corked) {
      const { stream } = connection;
      corked = true;
      stream.cork();
      // After the promises that are settled already: what follows from them belongs to the turn.
      process.nextTick(() => {
        corked = false;
        stream.uncork();
      });
    }
    const answer = query(...args);
    const answered = (): void => void (unanswered -= 1);
    unanswered += 1;
    answer.then(answered, answered);
    return answer;
  };
  client.query = together as typeof client.query;
  const end: () => Promise<void> = client.end.bind(client);
  // As pg does it for a client that is not pipelined: an answer may never come, on a socket that fell silent.
  client.end = (): Promise<void> => {
    if (unanswered > 0) connection.stream.destroy();
    return end();
  };
  return client;
}

/** How long the goodbye of a connection may take. */
const goodbyeMs = 1_000;

/** Says goodbye, and lets go of the socket where nobody answers: one that fell silent would be waited for until TCP gives it up. Never throws. */
export async function letGo(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => connectionOf(client).stream.destroy(), goodbyeMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

/** pg keeps it to itself. Its socket is another one once TLS has begun. */
function connectionOf(client: pg.Client): { readonly stream: Writable } {
  return (client as unknown as { readonly connection: { readonly stream: Writable } }).connection;
}
