/**
 * Who is present at the other gateways of an installation, as these say over the broker.
 *
 * What must hold: a gateway says in numbered messages who came and went. Whoever misses a message, or hears of a gateway for the first time,
 * asks that one for everybody who is there; a gateway that is silent for too long has nobody. So a lost message is made good within a beat.
 *
 * A place is a person (`u7`), or a person in a channel (`cpost:1`, a line break, `7`): no control character stands in a channel's name.
 */

import { randomBytes } from 'node:crypto';
import type { PresencePublication } from '../../broker/broker.js';

export interface ElsewhereOwner {
  publish(publications: readonly PresencePublication[]): void;
  /** Nobody was there at any other gateway and now is, or the other way round. */
  changed(place: string, present: boolean): void;
}

/** Changes are gathered for so long and go out together: a few messages instead of thousands in a storm of reconnects. */
const gatherMs = 20;
/** Each says that it is there at least this often … */
export const beatMs = 5_000;
/** … and has nobody when it was silent for longer than this. */
export const silentMs = 3.5 * beatMs;
/** Who has missed something asks for all of it, but not more often than this. */
const askMs = 1_000;
/** Places in one message. */
const placesAtOnce = 5_000;

/** Somebody, wherever they are. */
export function placeOf(userId: string): string {
  return `u${userId}`;
}

/** Somebody in a channel. */
export function placeIn(channel: string, userId: string): string {
  return `c${channel}\n${userId}`;
}

/** Whose place it is, and in which channel; null for one that is in none. */
export function partsOf(place: string): { readonly channel: string | null; readonly userId: string } {
  if (place.startsWith('u')) return { channel: null, userId: place.slice(1) };
  const end = place.indexOf('\n');
  return { channel: place.slice(1, end), userId: place.slice(end + 1) };
}

interface Node {
  readonly places: Set<string>;
  /** The number of the last message that was heard in order; below 0 until all who are there were told. */
  number: number;
  heardAtMs: number;
  askedAtMs: number;
  /** The parts heard so far of all who are there. */
  incoming: { readonly number: number; readonly places: Set<string>; parts: number } | null;
}

export class Elsewhere {
  readonly #id = randomBytes(9).toString('base64url');
  readonly #nodes = new Map<string, Node>();
  /** Place → at how many other gateways. */
  readonly #counts = new Map<string, number>();
  /** Channel → who is in it at other gateways. */
  readonly #members = new Map<string, Set<string>>();
  readonly #here = new Set<string>();
  readonly #said = new Set<string>();
  readonly #unsaid = new Set<string>();
  #number = 0;
  #gathering: NodeJS.Timeout | null = null;
  #beat: NodeJS.Timeout | null = null;

  constructor(private readonly owner: ElsewhereOwner) {}

  start(): void {
    this.#beat = setInterval(() => this.beat(), beatMs);
    this.ask(null);
  }

  /** Says that nobody is here any more. */
  stop(): void {
    if (this.#beat !== null) clearInterval(this.#beat);
    if (this.#gathering !== null) clearTimeout(this.#gathering);
    this.#beat = this.#gathering = null;
    this.owner.publish([{ to: 'presence', kind: 'ended', node: this.#id }]);
  }

  /** The broker was away: messages of both sides may have been lost. */
  reconnected(): void {
    this.ask(null);
    this.sayAll();
  }

  /** Somebody is at a place of this gateway, or no longer. */
  set(place: string, present: boolean): void {
    if (present) this.#here.add(place);
    else this.#here.delete(place);
    this.#unsaid.add(place);
    this.#gathering ??= setTimeout(() => this.say(), gatherMs);
  }

  /** Whether somebody is there at this gateway. */
  isHere(place: string): boolean {
    return this.#here.has(place);
  }

  /** Whether somebody is there at another one. */
  has(place: string): boolean {
    return this.#counts.has(place);
  }

  /** Who is in a channel at other gateways. */
  membersOf(channel: string): Iterable<string> {
    return this.#members.get(channel) ?? [];
  }

  receive(publication: PresencePublication): void {
    if (publication.node === this.#id) return;
    switch (publication.kind) {
      case 'ask':
        if (publication.of === null || publication.of === this.#id) this.sayAll();
        return;
      case 'ended':
        return this.drop(publication.node);
      case 'all':
        return this.hearAll(this.node(publication.node), publication);
      case 'changes':
        return this.hearChanges(this.node(publication.node), publication);
    }
  }

  private node(id: string): Node {
    let node = this.#nodes.get(id);
    if (node === undefined) {
      node = { places: new Set(), number: -1, heardAtMs: 0, askedAtMs: -Infinity, incoming: null };
      this.#nodes.set(id, node);
    }
    node.heardAtMs = performance.now();
    return node;
  }

  private hearChanges(node: Node, { node: id, number, came, went }: PresencePublication & { kind: 'changes' }): void {
    // A beat has the number of the message before it.
    const next = node.number + (came.length + went.length > 0 ? 1 : 0);
    if (node.number >= 0 && number < next) return;
    if (node.number < 0 || number > next) {
      const now = performance.now();
      if (now - node.askedAtMs < askMs) return;
      node.askedAtMs = now;
      return this.ask(id);
    }
    node.number = number;
    for (const place of came) this.add(node, place);
    for (const place of went) this.remove(node, place);
  }

  private hearAll(node: Node, { number, part, parts, places }: PresencePublication & { kind: 'all' }): void {
    if (part === 0) node.incoming = { number, places: new Set(), parts: 0 };
    const { incoming } = node;
    // A part is missing: the next beat tells.
    if (incoming === null || incoming.number !== number || incoming.parts !== part) return;
    incoming.parts += 1;
    for (const place of places) incoming.places.add(place);
    if (incoming.parts < parts) return;
    node.incoming = null;
    node.number = number;
    for (const place of [...node.places]) if (!incoming.places.has(place)) this.remove(node, place);
    for (const place of incoming.places) this.add(node, place);
  }

  private add(node: Node, place: string): void {
    if (node.places.has(place)) return;
    node.places.add(place);
    const before = this.#counts.get(place) ?? 0;
    this.#counts.set(place, before + 1);
    if (before > 0) return;
    const { channel, userId } = partsOf(place);
    const members = channel === null ? undefined : this.#members.get(channel);
    if (members !== undefined) members.add(userId);
    else if (channel !== null) this.#members.set(channel, new Set([userId]));
    this.owner.changed(place, true);
  }

  private remove(node: Node, place: string): void {
    if (!node.places.delete(place)) return;
    const left = (this.#counts.get(place) ?? 1) - 1;
    if (left > 0) return void this.#counts.set(place, left);
    this.#counts.delete(place);
    const { channel, userId } = partsOf(place);
    const members = channel === null ? undefined : this.#members.get(channel);
    if (channel !== null && members?.delete(userId) === true && members.size === 0) this.#members.delete(channel);
    this.owner.changed(place, false);
  }

  private drop(id: string): void {
    const node = this.#nodes.get(id);
    this.#nodes.delete(id);
    for (const place of [...(node?.places ?? [])]) if (node !== undefined) this.remove(node, place);
  }

  private beat(): void {
    const now = performance.now();
    for (const [id, node] of this.#nodes) if (now - node.heardAtMs > silentMs) this.drop(id);
    this.owner.publish([{ to: 'presence', kind: 'changes', node: this.#id, number: this.#number, came: [], went: [] }]);
  }

  private say(): void {
    this.#gathering = null;
    const came: string[] = [];
    const went: string[] = [];
    for (const place of this.#unsaid) {
      if (this.#here.has(place) === this.#said.has(place)) continue;
      if (this.#said.delete(place)) went.push(place);
      else {
        this.#said.add(place);
        came.push(place);
      }
    }
    this.#unsaid.clear();
    const messages: PresencePublication[] = [];
    for (let from = 0; from < Math.max(came.length, went.length); from += placesAtOnce) {
      const part = { came: came.slice(from, from + placesAtOnce), went: went.slice(from, from + placesAtOnce) };
      messages.push({ to: 'presence', kind: 'changes', node: this.#id, number: ++this.#number, ...part });
    }
    this.owner.publish(messages);
  }

  private sayAll(): void {
    const places = [...this.#said];
    const parts = Math.max(1, Math.ceil(places.length / placesAtOnce));
    this.owner.publish(
      Array.from({ length: parts }, (_, part) => ({
        ...({ to: 'presence', kind: 'all', node: this.#id, number: this.#number, part, parts } as const),
        places: places.slice(part * placesAtOnce, (part + 1) * placesAtOnce),
      })),
    );
  }

  /** `of` null: all of them. */
  private ask(of: string | null): void {
    this.owner.publish([{ to: 'presence', kind: 'ask', node: this.#id, of }]);
  }
}
