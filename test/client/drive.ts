/** Drives the pure machine through inputs, one after another, at chosen times. */

import { nextDeadline, transition } from '../../src/client/machine.js';
import {
  initialState,
  type Effect,
  type Frame,
  type Input,
  type Position,
  type State,
} from '../../src/client/state.js';
import type { AuthOk, JsonObject, SubscribeOk } from '../../src/protocol/frames.js';

export class Drive {
  state: State;
  now = 1_000_000;
  random = 0.5;
  /** Effects of the last input. */
  last: readonly Effect[] = [];
  readonly all: Effect[] = [];

  constructor(position: Position | null = null) {
    this.state = initialState(position);
  }

  put(...inputs: Input[]): this {
    for (const input of inputs) {
      const before = structuredClone(this.state);
      const step = transition(this.state, input, { now: this.now, random: this.random });
      // Purity is part of every test: the state that went in is as it was.
      if (JSON.stringify(plain(before)) !== JSON.stringify(plain(this.state)))
        throw new Error('the old state was changed');
      this.state = step.state;
      this.last = step.effects;
      this.all.push(...step.effects);
    }
    return this;
  }

  frame(frame: Frame): this {
    return this.put({ type: 'frame', frame });
  }

  /** Lets time pass up to the next deadline. */
  toDeadline(): this {
    const at = nextDeadline(this.state);
    if (at === Infinity) throw new Error('no deadline is set');
    this.now = Math.max(this.now, at);
    return this.put({ type: 'tick' });
  }

  pass(ms: number): this {
    const end = this.now + ms;
    for (let at = nextDeadline(this.state); at <= end; at = nextDeadline(this.state)) {
      this.now = Math.max(this.now, at);
      this.put({ type: 'tick' });
    }
    this.now = end;
    return this;
  }

  types(): string[] {
    return this.last.map((effect) => effect.type);
  }

  of<T extends Effect['type']>(type: T, among: readonly Effect[] = this.all): Extract<Effect, { type: T }>[] {
    return among.filter((effect): effect is Extract<Effect, { type: T }> => effect.type === type);
  }

  /** The last frame sent, with this op. */
  sent(op: string): JsonObject & { id: number } {
    const frames = this.of('send').map(({ frame }) => frame);
    const found = frames.reverse().find((frame) => frame['op'] === op);
    if (found === undefined) throw new Error(`no ${op} was sent`);
    return found as JsonObject & { id: number };
  }

  answer(op: string, ok: unknown): this {
    return this.frame({ id: this.sent(op).id, ok });
  }

  refuse(op: string, code: string, retry = false): this {
    return this.frame({ id: this.sent(op).id, error: { code, message: code, retry } });
  }

  // Phases, each reached the way the real thing does.

  token(): this {
    return this.put({ type: 'start' });
  }
  opening(): this {
    return this.token().put({ type: 'token', token: 't1' });
  }
  authenticating(): this {
    return this.opening().put({ type: 'open' });
  }
  replaying(ok: Partial<AuthOk> = {}): this {
    return this.authenticating().answer('auth', this.authOk(ok));
  }
  live(ok: Partial<AuthOk> = {}): this {
    return this.replaying(ok).frame({ event: 'synced', seq: ok.seq ?? 10 });
  }
  /** From `waiting` to `live` again. */
  again(ok: Partial<AuthOk> = {}): this {
    this.toDeadline();
    if (this.state.phase === 'token') this.put({ type: 'token', token: 't2' });
    this.put({ type: 'open' }).answer('auth', this.authOk(ok));
    return this;
  }

  authOk(ok: Partial<AuthOk> = {}): AuthOk {
    return {
      session: 's1',
      user_id: '42',
      seq: 10,
      epoch: 'e1',
      recovered: true,
      unseen: 3,
      unread: 5,
      ping_s: 25,
      expires_at: new Date(this.now + 3_600_000).toISOString(),
      ...ok,
    };
  }

  /** What handlers were given of the person's stream. */
  handed(): number[] {
    return this.of('push')
      .map(({ push }) => push['seq'])
      .filter((seq) => typeof seq === 'number');
  }

  offsets(channel: string): number[] {
    return this.of('channelPush')
      .filter((effect) => effect.channel === channel)
      .map(({ push }) => push['offset'])
      .filter((offset) => typeof offset === 'number');
  }
}

export function subscribeOk(ok: Partial<SubscribeOk> = {}): SubscribeOk {
  return { channel: 'post:1', offset: 5, epoch: 'e1', recovered: true, state: { likes_count: 7 }, ...ok };
}

export function notification(seq: number): Frame {
  return { event: 'notification', seq, data: { id: String(seq) } };
}

export function channelEvent(offset: number, channel = 'post:1'): Frame {
  return { event: 'comment_update', channel, offset, data: {} };
}

function plain(state: State): unknown {
  return {
    ...state,
    channels: [...state.channels],
    leaving: [...state.leaving],
    pending: [...state.pending],
    own: [...state.own],
  };
}
