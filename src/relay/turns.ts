/**
 * Work of others that changes inboxes (replays, retries), which must not run beside a batch: it waits for its turn between two of them.
 *
 * What must hold: turns come in the order in which they were asked for; whoever waits when the term ends is told so, and so is whoever asks
 * after that.
 */

import { BelfryError, messageOf } from '../errors.js';
import { blame } from './failures.js';

interface Turn {
  take(): Promise<void>;
  refuse(error: Error): void;
}

export class Turns {
  private readonly waiting: Turn[] = [];
  private ended = false;

  /** `asked` is called when somebody begins to wait. */
  constructor(private readonly asked: () => void) {}

  /**
   * Runs the work when its turn comes. Rejects with what the work throws (unless an event is to blame, `take` throws it too), and with
   * `lease_lost` when the term ends first.
   */
  async wait<T>(work: () => Promise<T>): Promise<T> {
    if (this.ended) throw termIsOver();
    return await new Promise<T>((resolve, reject) => {
      this.waiting.push({
        take: async () => {
          try {
            resolve(await work());
          } catch (error) {
            reject(error instanceof Error ? error : new Error(messageOf(error)));
            if (blame(error) !== 'event') throw error;
          }
        },
        refuse: reject,
      });
      this.asked();
    });
  }

  /** Gives the next in line its turn; false where nobody waits. Throws what ends the term. */
  async take(): Promise<boolean> {
    const turn = this.waiting.shift();
    if (turn === undefined) return false;
    await turn.take();
    return true;
  }

  /** The term is over. */
  end(): void {
    this.ended = true;
    for (const turn of this.waiting.splice(0)) turn.refuse(termIsOver());
  }
}

export function termIsOver(cause?: unknown): BelfryError {
  return new BelfryError('lease_lost', 'The term is over.', { retry: true, ...(cause === undefined ? {} : { cause }) });
}
