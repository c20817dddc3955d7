/**
 * Who may read, publish or see whom: the config's SQL, asked with a bounded time.
 *
 * What must hold: the answer is yes only if the SQL returned a row. A value that can't be cast means no row (SQLSTATE class 22, or the check
 * of a domain). Whatever else goes wrong is `unavailable`, never yes, and tells whoever asked nothing of the SQL. The SQL runs read only, on
 * connections of its own, so that a query that hangs starves neither inboxes nor the relay.
 */

import type { Pool, PoolClient } from 'pg';
import type { Access } from '../../config/types.js';
import { replaceParameters } from '../../config/values.js';
import { BelfryError, sqlState } from '../../errors.js';
import { createPool } from '../../postgres/connect.js';
import { openParameter, parameterTypesSql } from '../../schema/columns.js';

/** The person who asks, and what is asked for (a channel's id, another person). */
export interface Pair {
  readonly user: string;
  readonly other: string;
}

/** Connections for the config's SQL. */
const connections = 4;
/** The longest that one statement may take. */
const statementTimeoutMs = 2000;
/** The answer to a statement, an error included, is here by then, or its connection has gone silent. */
const queryTimeoutMs = 4000;
/** Most pairs that one statement asks for; fewer where the SQL takes too long for so many. */
const pairsAtOnce = 1000;
/** After a statement that took no longer than this, the next one asks for twice as many pairs. */
const easyMs = statementTimeoutMs / 4;

export class AccessRules {
  readonly #pool: Pool;
  readonly #questions = new Map<string, Question>();

  constructor(url: string) {
    this.#pool = createPool(url, {
      applicationName: 'belfry access',
      max: connections,
      queryTimeoutMs,
      session: { statement_timeout: String(statementTimeoutMs), default_transaction_read_only: 'on' },
    });
  }

  async stop(): Promise<void> {
    await this.#pool.end();
  }

  /** Throws BelfryError `unavailable`. `other` is the name of the second parameter: `id` or `other`. */
  async allows(access: Access, other: 'id' | 'other', pair: Pair): Promise<boolean> {
    if (access === 'public') return true;
    if (access === 'none') return false;
    try {
      return await this.ask(this.question(access.sql, other), pair);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** As `allows`, for many pairs with few statements; answers in the order of `pairs`. */
  async allowsEach(access: Access, other: 'id' | 'other', pairs: readonly Pair[]): Promise<boolean[]> {
    const allowed = new Set<Pair>();
    const problem = await this.decide(access, other, pairs, (pair, yes) => void (yes && allowed.add(pair)));
    if (problem !== null) throw problem;
    return pairs.map((pair) => allowed.has(pair));
  }

  /**
   * Likewise, telling each answer as soon as it is there. A pair that takes too long by itself is passed over; whatever else goes
   * wrong ends it. Gives null, or why some pairs got no answer (`unavailable`).
   */
  async decide<P extends Pair>(
    access: Access,
    other: 'id' | 'other',
    pairs: readonly P[],
    tell: (pair: P, allowed: boolean) => void,
  ): Promise<BelfryError | null> {
    if (access === 'public' || access === 'none') {
      for (const pair of pairs) tell(pair, access === 'public');
      return null;
    }
    const question = this.question(access.sql, other);
    let problem: BelfryError | null = null;
    for (let from = 0; from < pairs.length;) {
      const piece = pairs.slice(from, from + question.atOnce);
      const askedAtMs = performance.now();
      let answers: readonly boolean[] = [];
      try {
        answers = await this.askEach(question, piece);
        const easy = performance.now() - askedAtMs < easyMs;
        if (easy && piece.length >= question.atOnce) question.atOnce = Math.min(pairsAtOnce, 2 * question.atOnce);
      } catch (error) {
        // 57014: statement_timeout.
        if (sqlState(error) !== '57014') return unavailable(error);
        if (piece.length > 1) {
          question.atOnce = Math.min(question.atOnce, Math.ceil(piece.length / 2));
          continue;
        }
        problem = unavailable(error);
      }
      answers.forEach((allowed, i) => tell(piece[i] as P, allowed));
      from += piece.length;
    }
    return problem;
  }

  private question(sql: string, other: 'id' | 'other'): Question {
    let question = this.#questions.get(sql);
    if (question === undefined) {
      question = new Question(sql, other);
      this.#questions.set(sql, question);
    }
    return question;
  }

  private async ask(question: Question, pair: Pair): Promise<boolean> {
    try {
      const { rows } = await this.#pool.query<{ yes: boolean }>(question.single, question.values(pair));
      return rows[0]?.yes === true;
    } catch (error) {
      if (question.opened(error)) return await this.ask(question, pair);
      if (isDataError(error)) return false;
      throw error;
    }
  }

  private async askEach(question: Question, pairs: readonly Pair[]): Promise<boolean[]> {
    const [only] = pairs;
    if (only !== undefined && pairs.length === 1) return [await this.ask(question, only)];
    try {
      const text = await question.batch(() => this.#pool.connect());
      const { rows } = await this.#pool.query<{ n: string }>(text, [
        pairs.map(({ user }) => user),
        pairs.map(({ other }) => other),
      ]);
      const yes = new Set(rows.map(({ n }) => Number(n) - 1));
      return pairs.map((_, i) => yes.has(i));
    } catch (error) {
      if (question.opened(error)) return await this.askEach(question, pairs);
      if (!isDataError(error)) throw error;
      // One value that cannot be cast fails all of them: ask one by one.
      const answers: boolean[] = [];
      for (const pair of pairs) answers.push(await this.ask(question, pair));
      return answers;
    }
  }
}

/** One piece of the config's SQL as the statements that ask it. */
class Question {
  /** For one pair: its parameters get the types that Postgres infers. */
  single: string;
  /** Pairs that a batch asks for: what was seen to fit into the time that a statement has. */
  atOnce = pairsAtOnce;
  readonly #parameters: string[] = [];
  /** Parameters whose type nothing tells: they are text. */
  readonly #open = new Set<string>();
  #batch: Promise<string> | null = null;

  constructor(
    private readonly sql: string,
    private readonly other: 'id' | 'other',
  ) {
    this.single = this.ofOne();
  }

  /** Whether the error is about a parameter without a type: it is given one, and the question can be asked again. */
  opened(error: unknown): boolean {
    const name = this.#parameters[(openParameter(error) ?? 0) - 1];
    if (name === undefined) return false;
    this.#open.add(name);
    this.single = this.ofOne();
    return true;
  }

  values(pair: Pair): string[] {
    return this.#parameters.map((name) => (name === 'user' ? pair.user : pair.other));
  }

  /** For arrays of pairs, cast to the types that `single` would infer; gives the positions (from 1) of those with a row. */
  batch(connect: () => Promise<PoolClient>): Promise<string> {
    this.#batch ??= this.makeBatch(connect).catch((error: unknown) => {
      this.#batch = null;
      throw error;
    });
    return this.#batch;
  }

  private async makeBatch(connect: () => Promise<PoolClient>): Promise<string> {
    const types = await parameterTypes(await connect(), this.numbered());
    const cast = (name: string): string => {
      const type = types[this.#parameters.indexOf(name)] ?? 'text';
      return `cast(belfry_pair.${name === 'user' ? 'who' : 'what'} as ${type})`;
    };
    return (
      'select belfry_pair.n from unnest($1::text[], $2::text[]) with ordinality as belfry_pair(who, what, n) ' +
      `where exists (${replaceParameters(this.sql, cast)}\n)`
    );
  }

  /** A line break before the bracket: the SQL may end with a comment. */
  private ofOne(): string {
    return `select exists (${this.numbered()}\n) as yes`;
  }

  private numbered(): string {
    return replaceParameters(this.sql, (name) => {
      if (name !== 'user' && name !== this.other) return `:${name}`;
      let index = this.#parameters.indexOf(name);
      if (index < 0) index = this.#parameters.push(name) - 1;
      return this.#open.has(name) ? `$${index + 1}::text` : `$${index + 1}`;
    });
  }
}

/** In a transaction, so that a pooler cannot spread the statements over several sessions. Releases the client. */
async function parameterTypes(client: PoolClient, text: string): Promise<string[]> {
  let failed = true;
  try {
    await client.query('begin');
    await client.query(`prepare belfry_question as ${text}`);
    const { rows } = await client.query<{ types: string[] }>(parameterTypesSql, ['belfry_question']);
    await client.query('deallocate belfry_question');
    await client.query('commit');
    failed = false;
    return rows[0]?.types ?? [];
  } finally {
    client.release(failed);
  }
}

/** Class 22: data exception, e.g. 22P02, text that is no number. 23514: a check, which only a cast to a domain makes here. */
function isDataError(error: unknown): boolean {
  const state = sqlState(error);
  return state === '23514' || state?.startsWith('22') === true;
}

function unavailable(cause: unknown): BelfryError {
  return new BelfryError('unavailable', 'Whether this is allowed cannot be checked just now: try again.', {
    retry: true,
    cause,
  });
}
