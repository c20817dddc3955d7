/**
 * A server with streams as CONTRACT §5 has them, and a network that loses, doubles and cuts, as a model that a test
 * steps through. Everything is decided by the calls made on it; nothing runs by itself.
 *
 * A person's stream is a compacted log of `items`: an event changes an item and gets the next seq; a replay is the present
 * form, so it has holes. A channel's stream is a plain log. Live pushes may be dropped (a full socket buffer), doubled, and overtaken
 * by whatever frame comes next.
 */

import type { Frame } from '../../src/client/state.js';
import type { JsonObject } from '../../src/protocol/frames.js';
import { Drive, channelEvent } from './drive.js';

interface Channel {
  head: number;
  floor: number;
}

interface Connection {
  readonly toClient: Frame[];
  readonly toServer: (JsonObject & { id: number })[];
  /** A live push that the next frame overtakes. */
  held: Frame | null;
  authenticated: boolean;
  readonly subscribed: Set<string>;
}

export class World {
  readonly drive = new Drive();
  epoch = 1;
  head = 3;
  floor = 0;
  /** Item → the seq of its present form. */
  readonly items = new Map<number, number>();
  readonly channels = new Map<string, Channel>([
    ['a', { head: 2, floor: 0 }],
    ['b', { head: 0, floor: 0 }],
  ]);
  connection: Connection | null = null;
  /** The next live push is lost, comes twice, or is overtaken. */
  dropNext = false;
  doubleNext = false;
  swapNext = false;

  /** What the application holds: item → seq, and per channel the offsets; fetched at first and anew at each gap. */
  readonly view = new Map<number, number>();
  readonly channelView = new Map<string, Set<number>>();
  /** Positions handed out since the last gap, per stream; '' is the person's. */
  readonly handed = new Map<string, number[]>();
  problem: string | null = null;
  private seen = 0;
  private nextRef = 1;

  constructor() {
    this.step(() => this.drive.put({ type: 'start' }));
    for (const channel of this.channels.keys()) this.step(() => this.drive.put({ type: 'subscribe', channel }));
  }

  // What may happen -------------------------------------------------------------------------------------------------

  /** Something happens to an item of the person. */
  event(item: number): void {
    this.items.set(item, ++this.head);
    if (this.connection?.authenticated === true)
      this.live({ event: 'notification', seq: this.head, data: { id: String(item) } });
  }

  channelEvent(name: string): void {
    const channel = this.channel(name);
    channel.head++;
    if (this.connection?.subscribed.has(name) === true) this.live(channelEvent(channel.head, name));
  }

  mark(): void {
    this.step(() => this.drive.put({ type: 'call', ref: this.nextRef++, body: { op: 'seen', through: this.head } }));
  }

  /** Nothing below the present head is kept any more. */
  prune(): void {
    this.floor = this.head;
    for (const channel of this.channels.values()) channel.floor = channel.head;
  }

  /** Another database took over: all streams begin anew. */
  failover(): void {
    this.epoch++;
    this.head = Math.max(1, this.head - 2);
    this.items.clear();
    for (const channel of this.channels.values()) channel.head = Math.max(0, channel.head - 1);
    this.cut(1012);
  }

  cut(code: number): void {
    if (this.connection === null) return;
    this.connection = null;
    this.step(() => this.drive.put({ type: 'gone', code, reason: '' }));
  }

  wake(): void {
    this.step(() => this.drive.put({ type: 'wake' }));
  }

  /** Up to n frames reach the client. */
  deliver(n: number): void {
    for (let i = 0; i < n; i++) {
      const frame = this.connection?.toClient.shift();
      if (frame === undefined) return;
      this.step(() => this.drive.frame(frame));
    }
  }

  /** The server works off up to n requests. */
  serve(n: number): void {
    for (let i = 0; i < n; i++) {
      const request = this.connection?.toServer.shift();
      if (request === undefined) return;
      this.answer(request);
    }
  }

  pass(ms: number): void {
    const { drive } = this;
    this.step(() => {
      drive.now += ms;
      drive.put({ type: 'tick' });
    });
  }

  /** Without further trouble, until nothing is left to do. */
  settle(): void {
    this.dropNext = this.doubleNext = this.swapNext = false;
    for (let i = 0; i < 400; i++) {
      this.serve(1000);
      this.release();
      this.deliver(1000);
      const { phase, channels } = this.drive.state;
      const quiet = this.connection?.toClient.length === 0 && this.connection.toServer.length === 0;
      if (phase === 'live' && quiet && [...channels.values()].every((channel) => channel.phase === 'on')) return;
      this.pass(phase === 'live' ? 300 : 31_000);
    }
    this.fail('did not settle');
  }

  // The server --------------------------------------------------------------------------------------------------------

  private answer(request: JsonObject & { id: number }): void {
    const { connection } = this;
    if (connection === null) return;
    const { id, op } = request;
    const reply = (ok: unknown) => this.send({ id, ok });
    if (op === 'auth') {
      const since = request['since'] as number | undefined;
      const whole =
        since === undefined || (request['epoch'] === `e${this.epoch}` && since <= this.head && since >= this.floor);
      reply(this.drive.authOk({ seq: this.head, epoch: `e${this.epoch}`, recovered: whole }));
      if (since !== undefined && whole) {
        const missed = [...this.items].filter(([, seq]) => seq > since).sort(([, x], [, y]) => x - y);
        for (const [item, seq] of missed) this.send({ event: 'notification', seq, data: { id: String(item) } });
      }
      this.send({ event: 'synced', seq: this.head });
      connection.authenticated = true;
    } else if (op === 'subscribe') {
      const name = request['channel'] as string;
      const { head, floor } = this.channel(name);
      const offset = request['offset'] as number | undefined;
      const whole =
        offset === undefined || (request['epoch'] === `e${this.epoch}` && offset <= head && offset >= floor);
      reply({ channel: name, offset: head, epoch: `e${this.epoch}`, recovered: whole, state: {} });
      for (let at = (offset ?? head) + 1; whole && at <= head; at++) this.send(channelEvent(at, name));
      connection.subscribed.add(name);
    } else if (op === 'seen') {
      // A change of its own: the asker gets the answer in the place of the push.
      reply({ seq: ++this.head, unseen: 0, unread: 0 });
    } else {
      reply({});
    }
  }

  private live(frame: Frame): void {
    if (this.dropNext) {
      this.dropNext = false;
      return;
    }
    if (this.swapNext && this.connection?.held === null) {
      this.swapNext = false;
      this.connection.held = frame;
      return;
    }
    this.send(frame);
    if (this.doubleNext) this.send(frame);
    this.doubleNext = false;
  }

  private send(frame: Frame): void {
    this.connection?.toClient.push(frame);
    this.release();
  }

  private release(): void {
    const held = this.connection?.held ?? null;
    if (this.connection === null || held === null) return;
    this.connection.held = null;
    this.connection.toClient.push(held);
  }

  // The client's surroundings -----------------------------------------------------------------------------------------

  private step(action: () => void): void {
    action();
    const { all } = this.drive;
    while (this.seen < all.length) {
      const effect = all[this.seen++];
      switch (effect?.type) {
        case 'fetchToken':
          this.drive.put({ type: 'token', token: 't' });
          break;
        case 'open':
          if (this.connection !== null) this.fail('a second socket');
          this.connection = { toClient: [], toServer: [], held: null, authenticated: false, subscribed: new Set() };
          this.drive.put({ type: 'open' });
          break;
        case 'drop':
          this.connection = null;
          break;
        case 'send':
          if (this.connection === null) this.fail('sent without a socket');
          this.connection?.toServer.push(effect.frame as JsonObject & { id: number });
          break;
        case 'gap':
          this.fetch(effect.gap.channel);
          break;
        case 'push':
          if (typeof effect.push['seq'] === 'number') {
            this.hand('', effect.push['seq']);
            this.view.set(Number((effect.push['data'] as { id: string }).id), effect.push['seq']);
          }
          break;
        case 'channelPush':
          this.hand(effect.channel, effect.push['offset'] as number);
          this.channelView.get(effect.channel)?.add(effect.push['offset'] as number);
          break;
        default:
      }
    }
  }

  /** What the application does at first and at a gap: `GET` what is there now. */
  fetch(channel: string | null): void {
    this.handed.set(channel ?? '', []);
    if (channel !== null) {
      this.channelView.set(channel, new Set(upTo(this.channel(channel).head)));
      return;
    }
    this.view.clear();
    for (const [item, seq] of this.items) this.view.set(item, seq);
  }

  private hand(stream: string, position: number): void {
    const before = this.handed.get(stream) ?? [];
    const last = before.at(-1) ?? 0;
    if (position <= last) this.fail(`${stream || 'the person'}: ${position} after ${last}`);
    this.handed.set(stream, [...before, position]);
  }

  private channel(name: string): Channel {
    const channel = this.channels.get(name);
    if (channel === undefined) throw new Error(`no channel ${name}`);
    return channel;
  }

  private fail(problem: string): void {
    this.problem ??= problem;
  }
}

export function upTo(head: number): number[] {
  return Array.from({ length: head }, (_, i) => i + 1);
}
