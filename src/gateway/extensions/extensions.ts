/**
 * Custom events: a module of the application (`extensions` in the config) that handles what clients publish.
 *
 * What must hold: a handler that throws, hangs or blocks harms only its caller. So handlers run in threads of their own, beside
 * the event loop of the sockets; a call has a time limit; a thread that is blocked is ended, and what it had not begun is given
 * to another. A call that finds all threads at work gets one more, up to a bound; beyond it they share.
 */

import type { Pool } from 'pg';
import type { Broker } from '../../broker/broker.js';
import { BelfryError, messageOf } from '../../errors.js';
import type { Channels } from '../../inbox/types.js';
import type { Logger } from '../../log.js';
import type { JsonObject } from '../../protocol/frames.js';
import { parseClientFrame } from '../../protocol/parse.js';
import { HandlerError, HandlerThread, type Ask, type HandlerCall, type Task } from './handler-thread.js';

export interface ExtensionsOwner {
  /** Absolute file name of the module. */
  readonly file: string;
  readonly store: Channels;
  readonly broker: Broker;
  readonly pool: Pool;
  readonly log: Logger;
  readonly called: (outcome: 'ok' | 'refused' | 'failed') => void;
}

/** How long a call may wait for a thread. */
const waitMs = 15_000;
/** How long the module may take to load. */
const loadMs = 10_000;
const lookMs = 250;
/** That may be given something; as many again may be blocked, for the moment until they are ended. */
const mostThreads = 4;
/** Calls under way. */
const mostCalls = 1000;

export class Extensions {
  #threads: HandlerThread[] = [];
  #events: ReadonlySet<string> = new Set();
  #timer: NodeJS.Timeout | null = null;
  #calls = 0;
  #stopped = false;
  /** One call of a person at a time, however many sockets they have: nobody can occupy all threads. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(private readonly owner: ExtensionsOwner) {}

  /** Throws BelfryError `config_invalid` for a module that is no good. */
  async start(): Promise<void> {
    try {
      this.#events = new Set(await loadHandlers(this.thread(), this.owner.file));
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.owner.log.info({ events: [...this.#events] }, 'handlers of custom events');
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await Promise.all(this.#threads.map((thread) => thread.stop()));
  }

  handles(event: string): boolean {
    return this.#events.has(event);
  }

  /** What the handler answers; not asked if the caller is gone when its turn comes. Throws HandlerError, whose message is for the caller. */
  async call(call: HandlerCall, wanted: () => boolean): Promise<unknown> {
    if (this.#turns.size >= mostCalls)
      throw new HandlerError('unavailable', 'Too many calls are under way: try again.');
    const before = this.#turns.get(call.userId);
    const turn = (before ?? Promise.resolve()).then(() => {
      if (wanted()) return this.run(call);
      throw new HandlerError('unavailable', 'The session has ended.');
    });
    const over = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#turns.set(call.userId, over);
    void over.then(() => {
      if (this.#turns.get(call.userId) === over) this.#turns.delete(call.userId);
    });
    return turn;
  }

  private async run(call: HandlerCall): Promise<unknown> {
    this.#calls++;
    this.#timer ??= setInterval(() => this.look(), lookMs);
    try {
      const text = await new Promise<string>((done, failed) => {
        this.give({ call, endsAtMs: performance.now() + waitMs, begun: false, over: false, done, failed });
      });
      this.owner.called('ok');
      return JSON.parse(text) as unknown;
    } catch (error) {
      const fault = error instanceof HandlerError ? error.fault : null;
      this.owner.called(fault === null ? 'refused' : 'failed');
      if (fault !== null) this.owner.log.error({ event: call.event, fault }, 'a handler failed');
      throw error;
    } finally {
      this.#calls--;
    }
  }

  private give(task: Task): void {
    const well = this.#threads.filter(({ suspect }) => !suspect);
    let [least = this.#threads[0]] = well;
    for (const thread of well) if (least === undefined || thread.load < least.load) least = thread;
    const full = well.length >= mostThreads || this.#threads.length >= 2 * mostThreads;
    if (least === undefined || ((least.load > 0 || least.suspect) && !full)) least = this.thread();
    least.give(task);
  }

  private thread(): HandlerThread {
    const thread = new HandlerThread({
      file: this.owner.file,
      ask: (ask, by) => this.answer(ask, by),
      said: (line) => this.owner.log.info({ line }, 'a handler says'),
      trouble: (what) => this.owner.log.error({ fault: what }, 'handlers'),
      ended: (gone, unbegun) => {
        this.#threads = this.#threads.filter((other) => other !== gone);
        if (this.#stopped) return;
        for (const task of unbegun) this.give(task);
      },
    });
    this.#threads.push(thread);
    return thread;
  }

  private look(): void {
    const now = performance.now();
    for (const thread of this.#threads) thread.look(now);
    if (this.#calls > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Does what a handler asks for, in the name of the caller. Throws what is to be told to the handler. */
  private async answer({ what, args }: Ask, by: HandlerCall): Promise<unknown> {
    if (what === 'notify') {
      // Nobody is notified of what they did themselves: a note to the caller comes from nobody.
      const { rows } = await this.owner.pool.query<{ id: string }>(
        'select belfry.notify($1, $2, $3, $4, actor_id => $5) as id',
        [args['userId'], args['type'], args['message'], args['data'], args['userId'] === by.userId ? null : by.userId],
      );
      return rows[0]?.id;
    }
    const { channel, event, data } = published(args);
    const publication = await this.owner.store.append(channel, event, data, by.userId);
    this.owner.broker.publish([publication]);
    return publication.offset;
  }
}

/** The events that the module of this thread handles. Throws BelfryError `config_invalid` for one that is no good. */
export async function loadHandlers(thread: HandlerThread, file: string): Promise<readonly string[]> {
  try {
    return await within(loadMs, thread.ready);
  } catch (error) {
    throw new BelfryError('config_invalid', `extensions: ${file} cannot be used: ${messageOf(error)}.`, {
      cause: error,
    });
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it was not loaded within ${ms / 1000} s`)), ms);
  });
  return Promise.race([work, over]).finally(() => clearTimeout(timer));
}

/** Held to the same bounds as what a client publishes. */
function published(args: Readonly<Record<string, unknown>>): { channel: string; event: string; data: JsonObject } {
  const frame = parseClientFrame(JSON.stringify({ ...args, id: 1, op: 'publish' }));
  if (frame.kind === 'request' && frame.request.op === 'publish') return frame.request;
  throw new Error(`broadcast: ${frame.kind === 'error' ? frame.message : 'cannot be read'}`);
}
