/**
 * Keeps Belfry running in the demo, and takes it away for a while when the visitor wants to see an outage: the app goes on
 * writing, and what was missed rings when Belfry is back.
 *
 * What must hold: Belfry always comes back, and to the port it had, since the page and its sockets know no other; `stop` wins
 * over an outage under way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type App, type AppOptions, startApp } from '../app.js';
import type { Config } from '../config.js';
import { messageOf } from '../errors.js';
import { Refusal } from './http.js';

export type KeeperState = 'running' | 'stopping' | 'away' | 'starting';

/** While Belfry is away its remaining time is told this often. */
const tellEveryMs = 1000;
const retryMs = 2000;

export class Keeper {
  #app: App | null = null;
  #state: KeeperState = 'starting';
  #backAtMs = 0;
  readonly #ended = new AbortController();
  /** The outage under way; never rejects. */
  #outage: Promise<void> = Promise.resolve();

  constructor(
    private readonly config: Config,
    private readonly options: Omit<AppOptions, 'role'>,
    private readonly changed: () => void,
  ) {}

  get state(): { readonly state: KeeperState; readonly backInMs: number } {
    return { state: this.#state, backInMs: Math.max(0, this.#backAtMs - Date.now()) };
  }

  /** Throws as startApp does. */
  async start(): Promise<void> {
    this.#become('starting');
    this.#app = await startApp(this.config, { ...this.options, role: 'all' });
    this.#become('running');
  }

  /** Stops Belfry as an operator would and starts it again after `ms`. Throws Refusal 409 unless it is running. */
  leave(ms: number): void {
    if (this.#state !== 'running' || this.#ended.signal.aborted)
      throw new Refusal(409, 'Belfry is not running just now.');
    this.#backAtMs = Date.now() + ms;
    this.#outage = this.#away();
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#outage;
    await this.#halt();
  }

  async #away(): Promise<void> {
    const { signal } = this.#ended;
    this.#become('stopping');
    await this.#halt().catch((error: unknown) => this.#complain(error, 'Belfry did not stop cleanly'));
    this.#become('away');
    while (Date.now() < this.#backAtMs && !signal.aborted) {
      await this.#pause(Math.min(tellEveryMs, this.#backAtMs - Date.now()));
      this.changed();
    }
    while (!signal.aborted && this.#app === null) {
      await this.start().catch((error: unknown) =>
        this.#complain(error, 'Belfry could not come back; it is tried again'),
      );
      if (this.#app === null) await this.#pause(retryMs);
    }
  }

  #complain(error: unknown, what: string): void {
    this.options.log.error({ error: messageOf(error) }, what);
  }

  /** Ends early when the demo does. */
  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#ended.signal }).catch(() => undefined);
  }

  async #halt(): Promise<void> {
    const app = this.#app;
    this.#app = null;
    await app?.stop();
  }

  #become(state: KeeperState): void {
    this.#state = state;
    this.changed();
  }
}
