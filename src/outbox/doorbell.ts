/**
 * The doorbell: how the relay waits for the next event without costing writers anything while it is awake.
 *
 *     awake ──read was empty──▶ try K, and look ──refused──▶ pause (1 ms … 25 ms), try again
 *       ▲                         │          │ granted
 *       │◀──something is there────┘          ▼ nothing is there
 *       └──K released──────────  asleep, until it rings, or the safety poll finds something, or K is lost
 *
 * A writer takes K shared, and rings when it can't (belfry.ring). What must hold:
 * 1. K is held only from the grant to the look that finds something, or the end of the sleep: a relay that kept it while it
 *    works would make every writer ring.
 * 2. Between the grant and the sleep lies a look past the cursor. K is granted only when no open transaction has skipped the
 *    bell, and locks are released after the commit is visible; so that look sees all who skipped, and all later ones ring.
 * 3. A ring is only a hint: one that gets lost costs at most the safety poll, one too many costs an empty read.
 * 4. Nobody sleeps on a bell that can't be heard: without listener or sleeper the relay polls (5 ms … 500 ms), as it
 *    always does in mode `poll`, where nobody holds K and so nobody rings.
 */
import { performance } from 'node:perf_hooks';
import type { Logger } from '../log.js';
import type { RelayObserver } from '../relay/observer.js';
import { Listener } from './listener.js';
import { Sleeper } from './sleeper.js';

export interface DoorbellOptions {
  /** `notify`: sleep until it rings. `poll`: for two-phase commit, and where only a transaction-mode pooler is at hand. */
  readonly mode: 'notify' | 'poll';
  /** A direct connection's URL (database.listenUrl, else database.url); unused in mode `poll`. */
  readonly url: string;
  /** The cheap question whether anything lies past the cursor now (`unreadQuery`); asked with every try of K, and once a second while asleep. */
  readonly unread: () => string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly observer?: Pick<RelayObserver, 'doorbell'>;
}

/** Plain numbers since the start, for metrics. */
export interface DoorbellCounters {
  /** Rings that arrived. While the relay is awake there must be hardly any. */
  readonly rings: number;
  readonly sleeps: number;
  /** K was not granted, since a transaction that skipped the bell was still open. */
  readonly refusals: number;
  /** Sleeps that were ended by the safety poll: something was written without a ring. */
  readonly safetyWakes: number;
  /** Connections (sleeper and listener) that had to be replaced. */
  readonly replacements: number;
}

type Why = 'bell' | 'poll' | 'lost';

/** Pauses while K is refused: first, and longest. */
const refusedMs = { first: 1, longest: 25 } as const;
/** Pauses between reads without a bell. */
const pollMs = { first: 5, longest: 500 } as const;
const safetyPollMs = 1_000;

export class Doorbell {
  readonly #options: DoorbellOptions;
  readonly #listener: Listener | null;
  readonly #sleeper: Sleeper | null;
  readonly #counters = { rings: 0, sleeps: 0, refusals: 0, safetyWakes: 0 };
  #stopped = false;
  /** It rang, or a connection changed, since this was last set to null. */
  #called: Why | null = null;
  /** Somebody asked for the relay by `wake`; kept until a wait has returned for it. */
  #wanted = false;
  #resume: (() => void) | null = null;

  constructor(options: DoorbellOptions) {
    this.#options = options;
    const { url, log } = options;
    const notify = options.mode === 'notify';
    this.#sleeper = notify ? new Sleeper({ url, log, onLost: () => this.#call('lost') }) : null;
    this.#listener = notify
      ? new Listener({
          url,
          log,
          onRing: () => {
            this.#counters.rings += 1;
            this.#call('bell');
          },
          // What was committed while nobody listened is found by a read; without a listener there is no sleep.
          onChange: () => this.#call('lost'),
        })
      : null;
  }

  get counters(): DoorbellCounters {
    const replacements = (this.#sleeper?.replacements ?? 0) + (this.#listener?.counters.replacements ?? 0);
    return { ...this.#counters, replacements };
  }

  /** Backends of its connections that hold locks, for the lease. */
  get backends(): readonly number[] {
    const pid = this.#sleeper?.pid ?? null;
    return pid === null ? [] : [pid];
  }

  /** Returns when the bell can be heard. Throws `database_unsuitable` (pooler, standby), and what `connect` throws. */
  async start(): Promise<void> {
    try {
      await this.#listener?.start();
      await this.#sleeper?.start();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#options.observer?.doorbell?.('awake', 'start');
  }

  /** Ends a wait, K and the connections. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.wake();
    await Promise.all([this.#sleeper?.stop(), this.#listener?.stop()]);
  }

  /** Ends the wait that is going on, else the next one. */
  wake(): void {
    this.#wanted = true;
    this.#resume?.();
  }

  /**
   * To be called after a read that was empty; `read` reads again and gives null when it finds nothing. Returns what `read`
   * found, or null when it is time to read again. At most `maxMs`, for work that is due by the clock. Throws only
   * what `read` throws.
   */
  async wait<T>(read: () => Promise<T | null>, maxMs = Infinity): Promise<T | null> {
    const until = performance.now() + maxMs;
    const pauses = { refused: refusedMs.first as number, poll: pollMs.first as number };
    while (this.#mayWait(until)) {
      // Whatever rings from here on is remembered, or seen by the look or read that follows.
      this.#called = null;
      if (this.#sleeper?.alive === true && this.#listener?.connected === true) {
        const attempt = await this.#sleeper.tryLock(this.#options.unread());
        if (attempt?.granted === true && !attempt.more) {
          await this.#sleep(this.#sleeper, until);
          this.#wanted = false;
          return null;
        }
        if (attempt?.granted === false) this.#counters.refusals += 1;
        const found = attempt?.more === true ? await read() : null;
        if (found !== null) return found;
        await this.#pause(Math.min(pauses.refused, until - performance.now()));
        pauses.refused = Math.min(pauses.refused * 2, refusedMs.longest);
        continue;
      }
      await this.#pause(Math.min(pauses.poll, until - performance.now()));
      pauses.poll = Math.min(pauses.poll * 2, pollMs.longest);
      const found = await read();
      if (found !== null) return found;
    }
    this.#wanted = false;
    return null;
  }

  /** With K granted, and nothing to read since. */
  async #sleep(sleeper: Sleeper, until: number): Promise<void> {
    if (this.#called !== null || !sleeper.alive || !this.#mayWait(until)) return await sleeper.release();
    this.#counters.sleeps += 1;
    this.#options.observer?.doorbell?.('asleep', 'empty');
    const why = await this.#sleepUntilCalled(sleeper, until);
    // Sent now; the read that follows need not wait for the answer.
    void sleeper.release();
    this.#options.observer?.doorbell?.('awake', why === 'bell' ? 'bell' : 'poll');
  }

  async #sleepUntilCalled(sleeper: Sleeper, until: number): Promise<Why | null> {
    while (this.#called === null && this.#mayWait(until)) {
      await this.#pause(Math.min(safetyPollMs, until - performance.now()));
      if (this.#called !== null || !this.#mayWait(until)) break;
      if (await sleeper.unread(this.#options.unread())) {
        this.#counters.safetyWakes += sleeper.alive ? 1 : 0;
        return 'poll';
      }
    }
    return this.#called;
  }

  #mayWait(until: number): boolean {
    return !this.#stopped && !this.#wanted && performance.now() < until;
  }

  /** Until the time is over or somebody calls. */
  async #pause(ms: number): Promise<void> {
    if (this.#called !== null || this.#wanted || this.#stopped) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, ms));
      this.#resume = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#resume = null;
  }

  #call(why: Why): void {
    this.#called ??= why;
    this.#resume?.();
  }
}
