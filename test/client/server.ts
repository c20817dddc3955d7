/** A scripted WebSocket server on package `ws`: each connection is a list of frames that a test waits for and answers. */

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocketServer, type RawData, type WebSocket } from 'ws';
import type { AuthOk, JsonObject } from '../../src/protocol/frames.js';

type Asked = JsonObject & { id: number; op: string };

export class Peer {
  private readonly frames: Asked[] = [];
  private arrived: (() => void) | null = null;
  closed: { code: number; reason: string } | null = null;

  constructor(
    readonly socket: WebSocket,
    readonly protocol: string,
    readonly url: string,
  ) {
    socket.on('message', (data: RawData) => {
      this.frames.push(JSON.parse((data as Buffer).toString()) as Asked);
      this.arrived?.();
    });
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      this.arrived?.();
    });
  }

  /** The next request; throws if it is another op or the connection ended. */
  async next(op: string): Promise<Asked> {
    while (this.frames.length === 0) {
      if (this.closed !== null) throw new Error(`closed while waiting for ${op}`);
      await new Promise<void>((resolve) => (this.arrived = resolve));
    }
    const frame = this.frames.shift();
    if (frame?.op !== op) throw new Error(`expected ${op}, got ${JSON.stringify(frame)}`);
    return frame;
  }

  async gone(): Promise<{ code: number; reason: string }> {
    while (this.closed === null) await new Promise<void>((resolve) => (this.arrived = resolve));
    return this.closed;
  }

  send(...frames: object[]): void {
    for (const frame of frames) this.socket.send(JSON.stringify(frame));
  }

  /** Answers auth and says that the replay (of these frames) is over. */
  async welcome(ok: Partial<AuthOk> = {}, ...replay: object[]): Promise<Asked> {
    const asked = await this.next('auth');
    const whole: AuthOk = {
      session: 's1',
      user_id: '42',
      seq: 10,
      epoch: 'e1',
      recovered: true,
      unseen: 3,
      unread: 5,
      ping_s: 25,
      expires_at: new Date(Date.now() + 3_600_000).toISOString(),
      ...ok,
    };
    this.send({ id: asked.id, ok: whole }, ...replay, { event: 'synced', seq: whole.seq });
    return asked;
  }
}

export interface ScriptedServer {
  readonly url: string;
  /** The next connection. */
  peer(): Promise<Peer>;
  /** How many connections there have been. */
  count(): number;
  stop(): Promise<void>;
}

export async function scriptedServer(): Promise<ScriptedServer> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  const peers: Peer[] = [];
  let count = 0;
  let arrived: (() => void) | null = null;
  server.on('connection', (socket, request) => {
    count++;
    peers.push(new Peer(socket, socket.protocol, request.url ?? ''));
    arrived?.();
  });
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    async peer() {
      while (peers.length === 0) await new Promise<void>((resolve) => (arrived = resolve));
      return peers.shift() as Peer;
    },
    async stop() {
      for (const socket of server.clients) socket.terminate();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
