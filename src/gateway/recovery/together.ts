/**
 * Questions of one turn, asked together: what many sessions want to know at once becomes few statements.
 *
 * What must hold: a question is answered from a read that began after it was asked; a question that comes alone is asked at the
 * end of its turn; one batch runs at a time, `spacingMs` apart, and what comes meanwhile waits for the next, so that batches grow
 * with the load; where a batch fails, those questions fail that can't be answered by themselves either.
 */

import { inHalves } from '../../halves.js';
import { isOfNoRow } from '../problem.js';

interface Waiter<Q, A> {
  readonly question: Q;
  readonly resolve: (answer: A) => void;
  readonly reject: (error: unknown) => void;
}

/** Batches begin at least this far apart: in a storm of reconnects a handful of statements instead of thousands. */
const spacingMs = 10;

export class Together<Q, A> {
  #waiting: Waiter<Q, A>[] = [];
  #running = false;

  constructor(
    private readonly askAll: (questions: readonly Q[]) => Promise<readonly A[]>,
    /** Questions per batch. */
    private readonly most: number,
  ) {}

  ask(question: Q): Promise<A> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ question, resolve, reject });
      if (this.#running) return;
      this.#running = true;
      // The end of the turn: whoever else came in it is asked for too.
      setImmediate(() => void this.run());
    });
  }

  private async run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const next = performance.now() + spacingMs;
      const batch = this.#waiting.splice(0, this.most);
      await inHalves(
        batch,
        isOfNoRow,
        async (some) => {
          const answers = await this.askAll(some.map(({ question }) => question));
          some.forEach(({ resolve }, i) => resolve(answers[i] as A));
        },
        (some, error) => some.forEach(({ reject }) => reject(error)),
      );
      const waitMs = next - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
    this.#running = false;
  }
}
