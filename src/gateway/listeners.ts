/**
 * Where the gateway listens: one app of uWebSockets.js, and after its TLS files were read anew the newer one beside those that
 * still have sockets.
 *
 * What must hold: a port that somebody listens on is refused, though uWebSockets would share it without a word; files that are
 * no good are refused with what Node says of them, and change nothing; sockets of an older app live on, and hear what is
 * published; between the two apps there is no moment in which nobody listens.
 */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createSecureContext } from 'node:tls';
import { App, SSLApp, us_listen_socket_close, us_socket_local_port } from 'uWebSockets.js';
import type { TemplatedApp, us_listen_socket } from 'uWebSockets.js';
import type { ServerConfig } from '../config/types.js';
import { BelfryError, messageOf } from '../errors.js';

/** Sends to all sockets that are in a topic, whatever app they belong to. */
export interface Publisher {
  publish(topic: string, message: string): void;
}

/** One app; it counts its own sockets. */
export interface Front {
  readonly app: TemplatedApp;
  sockets: number;
}

export class Listeners implements Publisher {
  /** The newest last; it alone takes new connections. */
  #fronts: Front[] = [];
  #listening: us_listen_socket | null = null;
  #port = 0;

  constructor(
    private readonly server: ServerConfig,
    /** Adds the routes. */
    private readonly equip: (front: Front) => void,
  ) {}

  /** Where it listens. Throws BelfryError `port_in_use` or `config_invalid`. */
  async start(): Promise<number> {
    const front = this.make();
    const { host, port } = this.server;
    const problem = port === 0 ? null : await whyNot(host, port);
    if (problem !== null) throw new BelfryError('port_in_use', problem);
    const listening = await listen(front.app, host, port);
    if (listening === null)
      throw new BelfryError('port_in_use', (await whyNot(host, port)) ?? `Port ${port} is in use.`);
    this.#fronts = [front];
    this.#listening = listening;
    this.#port = us_socket_local_port(listening);
    return this.#port;
  }

  /** New connections get the TLS files as they are now. Throws BelfryError; then everything stays as it was. */
  async renew(): Promise<void> {
    if (this.server.tls === null || this.#listening === null) return;
    const front = this.make();
    // Both share the port for a moment (SO_REUSEPORT).
    const listening = await listen(front.app, this.server.host, this.#port);
    if (listening === null)
      throw new BelfryError('port_in_use', `server.tls: port ${this.#port} could not be opened a second time.`);
    const before = this.#listening;
    this.#listening = listening;
    us_listen_socket_close(before);
    // The last one may still be answering; what was before it only its sockets keep.
    const last = this.#fronts.at(-1);
    const idle = this.#fronts.filter((other) => other !== last && other.sockets === 0);
    for (const { app } of idle) app.close();
    this.#fronts = [...this.#fronts.filter((other) => !idle.includes(other)), front];
  }

  publish(topic: string, message: string): void {
    for (const { app } of this.#fronts) app.publish(topic, message);
  }

  stop(): void {
    if (this.#listening !== null) us_listen_socket_close(this.#listening);
    this.#listening = null;
    for (const { app } of this.#fronts) app.close();
    this.#fronts = [];
  }

  private make(): Front {
    const { tls } = this.server;
    const front = { app: tls === null ? App() : secureApp(tls), sockets: 0 };
    this.equip(front);
    return front;
  }
}

function listen(app: TemplatedApp, host: string, port: number): Promise<us_listen_socket | null> {
  return new Promise((resolve) => {
    app.listen(host, port, (socket: us_listen_socket | false) => resolve(socket === false ? null : socket));
  });
}

/** uWebSockets serves nothing, without a word, from files that are no good: Node says what is wrong with them. */
function secureApp(tls: { readonly cert: string; readonly key: string }): TemplatedApp {
  try {
    createSecureContext({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) });
  } catch (error) {
    throw new BelfryError('config_invalid', `server.tls: ${messageOf(error)}. Check the files cert and key.`, {
      cause: error,
    });
  }
  return SSLApp({ cert_file_name: tls.cert, key_file_name: tls.key });
}

/** Null where nobody listens; uWebSockets does not say why it could not: Node does. */
function whyNot(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', (error) => {
      const inUse = 'code' in error && error.code === 'EADDRINUSE';
      resolve(
        inUse
          ? `Port ${port} is in use: stop what listens there, or set PORT.`
          : `Cannot listen on ${host}:${port}: ${messageOf(error)}.`,
      );
    });
    probe.listen(port, host, () => probe.close(() => resolve(null)));
  });
}
