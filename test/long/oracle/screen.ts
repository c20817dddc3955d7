/** An open page: Belfry's own client, and what it makes a page hold that never fetches anything. */

import { WebSocket } from 'ws';
import {
  connect,
  type Client,
  type MarkTarget,
  type NotificationData,
  type NotificationState,
} from '../../../src/client/index.js';
import { token } from './belfry.js';
import type { Mark } from './model.js';

/** What a mark is called in the API. */
export const calls = { seen: 'seen', read: 'read', archived: 'archive' } as const;

export interface Held {
  readonly seq: number;
  readonly data: NotificationData;
}

/** A notification that came, and in which state the page held it until then; null where it did not. */
export interface Heard {
  readonly seq: number;
  readonly data: NotificationData;
  readonly held: NotificationState | null;
}

export class Screen {
  readonly list = new Map<string, Held>();
  /** Where each notification stood last, also one that was withdrawn. */
  readonly places = new Map<string, number>();
  /** What must never happen. */
  readonly problems: string[] = [];
  /** Since `begin`. */
  heard: Heard[] = [];
  /** Since `begin`: who did what in the channels, and the comments that came whole. */
  told: { readonly actor: string; readonly channel: string }[] = [];
  comments: string[] = [];
  /** Since `begin` it missed nothing of the channels. */
  complete = true;
  readonly counts = new Map<string, Record<string, number>>();
  private readonly channels = new Set<string>();
  private client: Client;
  private lastSeq = 0;
  private ownSeq = 0;
  /** Of each channel the last that it knows. */
  readonly offsets = new Map<string, number>();
  /** By channel and offset, of all connections. */
  private readonly contents = new Map<string, string>();

  constructor(
    readonly user: string,
    private readonly ports: () => number,
  ) {
    this.client = this.open();
  }

  /** The position of a mark of its own comes as no push, but with the answer. */
  get seq(): number {
    return Math.max(this.client.position?.seq ?? 0, this.ownSeq);
  }

  get online(): boolean {
    return this.client.status.status === 'online';
  }

  get unseen(): number | null {
    return this.client.badge?.unseen ?? null;
  }

  /** What it shows, newest first. */
  items(): NotificationData[] {
    const shown = [...this.list.values()].filter(({ data }) => data.data.state !== 'archived');
    return shown.sort((a, b) => b.seq - a.seq).map(({ data }) => data);
  }

  begin(): void {
    this.heard = [];
    this.told = [];
    this.comments = [];
    this.complete = true;
  }

  async watch(post: string): Promise<void> {
    this.channels.add(`post:${post}`);
    await this.subscribe(this.client, `post:${post}`);
  }

  /** Goes away; `comeBack` begins with what it holds, its channels anew. */
  leave(): void {
    this.complete = false;
    this.client.close();
    this.offsets.clear();
  }

  comeBack(): void {
    if (this.client.status.status !== 'closed') return;
    this.client = this.open();
    for (const channel of this.channels) void this.subscribe(this.client, channel).catch(() => undefined);
  }

  /** Comes anew, with what it holds; resolves once it is where it was. */
  async reload(): Promise<void> {
    this.leave();
    this.client = this.open();
    for (const channel of this.channels) await this.subscribe(this.client, channel);
  }

  /** As if the network said that it is back: nobody waits half a minute for the next attempt. */
  hurry(): void {
    if (this.client.status.status !== 'waiting') return;
    this.leave();
    this.comeBack();
  }

  async mark(state: Mark, target: MarkTarget): Promise<void> {
    const { seq, unchanged } = await this.client[calls[state]]('ids' in target ? target.ids : target);
    if (unchanged !== true) this.ownSeq = seq;
    this.marked(target, state);
  }

  close(): void {
    this.client.close();
  }

  private open(position = this.client?.position ?? null): Client {
    const client = connect({
      url: `ws://127.0.0.1:${this.ports()}`,
      token: () => token(this.user),
      WebSocket,
      ...(position === null ? {} : { position }),
    });
    client.on('notification', (data, { seq = 0 }) => {
      this.move(seq);
      this.heard.push({ seq, data, held: this.list.get(data.id)?.data.data.state ?? null });
      this.list.set(data.id, { seq, data });
      this.places.set(data.id, seq);
    });
    client.on('withdrawn', ({ id }, { seq }) => {
      this.move(seq);
      this.list.delete(id);
      this.places.set(id, seq);
    });
    client.on('state', (data, { seq }) => {
      this.move(seq);
      this.marked(data, data.state);
    });
    client.on('gap', (gap) => this.problems.push(`a gap: ${JSON.stringify(gap)}`));
    client.on('frame', (frame) => this.compare(frame));
    client.on('channel', ({ channel, offset, data }) => {
      if (offset !== undefined) {
        const last = this.offsets.get(channel);
        if (last !== undefined && offset !== last + 1)
          this.problems.push(`offset ${offset} of ${channel} after ${last}`);
        this.offsets.set(channel, offset);
      }
      const { user_id: actor, comment } = data as { user_id?: string; comment?: { id: unknown } };
      if (actor !== undefined) this.told.push({ actor, channel });
      if (comment !== undefined) this.comments.push(String(comment.id));
      this.count(channel, data);
    });
    return client;
  }

  private async subscribe(client: Client, channel: string): Promise<void> {
    const subscription = client.subscribe(
      channel,
      () => undefined,
      (state) => this.count(channel, state),
    );
    const { offset } = await subscription.ready;
    this.offsets.set(channel, Math.max(offset, this.offsets.get(channel) ?? 0));
  }

  private count(channel: string, data: Readonly<Record<string, unknown>>): void {
    const counts = this.counts.get(channel) ?? {};
    this.counts.set(channel, counts);
    for (const field of ['likes_count', 'comments_count']) {
      const count = data[field];
      if (typeof count === 'number') counts[field] = count;
    }
  }

  private marked(target: MarkTarget, state: NotificationState): void {
    const order = ['unseen', 'seen', 'read', 'archived'];
    for (const [id, { seq, data }] of this.list) {
      const concerned = 'ids' in target ? target.ids.includes(id) : seq <= target.through;
      if (!concerned || order.indexOf(data.data.state) >= order.indexOf(state)) continue;
      this.list.set(id, { seq, data: { ...data, data: { ...data.data, state } } });
    }
  }

  private move(seq: number): void {
    if (seq <= this.lastSeq) this.problems.push(`seq ${seq} after ${this.lastSeq}`);
    this.lastSeq = seq;
  }

  /** One offset is one event, whatever connection brings it; counts are as they are now, and a block may hide what it was. */
  private compare(frame: Readonly<Record<string, unknown>>): void {
    const { channel, offset, data } = frame as {
      channel?: string;
      offset?: number;
      data?: { comment?: { id: unknown } };
    };
    if (channel === undefined || offset === undefined || data?.comment === undefined) return;
    const place = `${channel} ${offset}`;
    const content = String(data.comment.id);
    const known = this.contents.get(place) ?? content;
    if (known !== content) this.problems.push(`${place} was comment ${known} and is ${content}`);
    this.contents.set(place, content);
  }
}
