/**
 * One thread with handlers, seen from the gateway (extension-thread.mjs is the other side).
 *
 * What must hold: every call given to it ends, by its answer or when the thread does; a call that had begun when the thread
 * ended may have had effects, one that had not is free to be given to another thread.
 */

import { Worker } from 'node:worker_threads';
import type { JsonObject } from '../../protocol/frames.js';
import type { ErrorCode } from '../../protocol/codes.js';

/** What a handler is told. */
export interface HandlerCall {
  readonly userId: string;
  readonly session: string;
  readonly channel: string;
  readonly event: string;
  readonly data: JsonObject;
}

/** How a call can end, other than by its answer. */
export class HandlerError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    /** What goes into the log, and to nobody else. */
    readonly fault: string | null = null,
  ) {
    super(message);
  }
}

export interface Task {
  readonly call: HandlerCall;
  /** Moved when it begins: waiting for a thread is not the handler's time. */
  endsAtMs: number;
  begun: boolean;
  over: boolean;
  /** The answer as JSON. */
  readonly done: (text: string) => void;
  readonly failed: (error: HandlerError) => void;
}

/** What a handler asks the gateway for. */
export interface Ask {
  readonly what: 'broadcast' | 'notify';
  readonly args: Readonly<Record<string, unknown>>;
}

export interface ThreadOwner {
  readonly file: string;
  readonly ask: (ask: Ask, by: HandlerCall) => Promise<unknown>;
  readonly said: (line: string) => void;
  readonly trouble: (what: string) => void;
  /** The thread is gone; these had not begun. */
  readonly ended: (thread: HandlerThread, unbegun: readonly Task[]) => void;
}

type FromThread =
  | { readonly kind: 'ready'; readonly events: readonly string[] }
  | { readonly kind: 'unusable'; readonly message: string }
  | { readonly kind: 'begun'; readonly id: number }
  | { readonly kind: 'answer'; readonly id: number; readonly text: string }
  | { readonly kind: 'refused'; readonly id: number; readonly code: ErrorCode; readonly message: string }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string }
  | ({ readonly kind: 'ask'; readonly id: number; readonly ask: number } & Ask)
  | { readonly kind: 'trouble'; readonly message: string }
  | { readonly kind: 'pong' };

/** How long a handler may take. */
const handlerMs = 5000;
/** Of a thread; more is a leak, and ends the thread instead of the process. */
const memoryMiB = 128;
/** Characters of a line that a handler prints. */
const lineChars = 2000;
/** Looks after which a thread that has not answered a ping counts as blocked: ours, so that a stalled machine blames nobody. */
const looksBeforeBlocked = 6;
/** After that many it is given nothing more. */
const looksBeforeSuspect = 2;

export class HandlerThread {
  /** The events that have a handler; rejects with what is wrong with the module. */
  readonly ready: Promise<readonly string[]>;
  readonly #worker: Worker;
  readonly #tasks = new Map<number, Task>();
  #next = 1;
  #looks = 0;
  #over = false;
  #usable = false;

  constructor(private readonly owner: ThreadOwner) {
    this.#worker = new Worker(new URL('./extension-thread.mjs', import.meta.url), {
      workerData: { file: owner.file },
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: memoryMiB },
    });
    for (const stream of [this.#worker.stdout, this.#worker.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        for (const line of text.split('\n')) if (line !== '') owner.said(line.slice(0, lineChars));
      });
    }
    this.ready = new Promise((resolve, reject) => {
      this.#worker.on('message', (message: FromThread) => {
        if (message.kind === 'ready') {
          this.#usable = true;
          resolve(message.events);
        } else if (message.kind === 'unusable') {
          reject(new Error(message.message));
          this.end(`The module of handlers cannot be used: ${message.message}`);
        } else {
          this.receive(message);
        }
      });
      this.#worker.on('error', (error) => {
        reject(error);
        this.end(`A thread of handlers has ended: ${error.message}`);
      });
      this.#worker.on('exit', () => {
        reject(new Error('it has ended its thread'));
        this.end('A thread of handlers has ended by itself.');
      });
    });
    this.ready.catch(() => undefined);
  }

  /** Calls that are not over. */
  get load(): number {
    return this.#tasks.size;
  }

  /** Whether it may be blocked. */
  get suspect(): boolean {
    return this.#looks > looksBeforeSuspect;
  }

  give(task: Task): void {
    const id = this.#next++;
    this.#tasks.set(id, task);
    this.#worker.postMessage({ kind: 'call', id, event: task.call.event, call: task.call });
  }

  /** To be called at even intervals while calls are under way: ends what takes too long, and a thread that is blocked. */
  look(nowMs: number): void {
    for (const [id, task] of this.#tasks) {
      if (task.endsAtMs > nowMs) continue;
      this.#tasks.delete(id);
      fail(task, new HandlerError('unavailable', 'The handler took too long.', 'it took too long'));
    }
    // One that is still loading is slow, not blocked.
    if (!this.#usable) return;
    if (this.#looks === 0) this.#worker.postMessage({ kind: 'ping' });
    if (++this.#looks > looksBeforeBlocked) this.end('A handler blocked its thread, which was ended.');
  }

  stop(): Promise<number> {
    this.#over = true;
    return this.#worker.terminate();
  }

  private receive(message: FromThread): void {
    if (message.kind === 'pong') this.#looks = 0;
    else if (message.kind === 'trouble') this.owner.trouble(message.message);
    else if (message.kind === 'ask') this.ask(message);
    else if ('id' in message) this.settle(message);
  }

  private settle(message: Extract<FromThread, { id: number }>): void {
    const task = this.#tasks.get(message.id);
    if (task === undefined) return;
    if (message.kind === 'begun') {
      task.begun = true;
      task.endsAtMs = performance.now() + handlerMs;
      return;
    }
    this.#tasks.delete(message.id);
    if (message.kind === 'answer') {
      task.over = true;
      task.done(message.text);
    } else if (message.kind === 'refused') {
      fail(task, new HandlerError(message.code, message.message));
    } else if (message.kind === 'failed') {
      fail(task, new HandlerError('internal', 'Something went wrong; it was logged.', message.message));
    }
  }

  /** Also from a handler that has run out of time: what it does then is its own affair. */
  private ask({ id, ask, what, args }: Extract<FromThread, { kind: 'ask' }>): void {
    const task = this.#tasks.get(id);
    if (task === undefined) return this.#worker.postMessage({ kind: 'settled', ask, error: 'the call is over' });
    this.owner.ask({ what, args }, task.call).then(
      (value) => this.#worker.postMessage({ kind: 'settled', ask, value }),
      (error: unknown) => {
        const text = error instanceof Error ? error.message : String(error);
        this.#worker.postMessage({ kind: 'settled', ask, error: text });
      },
    );
  }

  private end(why: string): void {
    if (this.#over) return;
    void this.stop();
    const tasks = [...this.#tasks.values()];
    this.#tasks.clear();
    // Where the module itself is no good, no other thread will do better.
    const lost = tasks.filter(({ begun }) => begun || !this.#usable);
    for (const task of lost) {
      fail(task, new HandlerError('unavailable', 'The handler was ended before it answered.', why));
    }
    this.owner.trouble(why);
    this.owner.ended(
      this,
      tasks.filter((task) => !lost.includes(task)),
    );
  }
}

function fail(task: Task, error: HandlerError): void {
  if (task.over) return;
  task.over = true;
  task.failed(error);
}
