/**
 * Traffic by the crowd: likes, comments and follows at a chosen rate, each an ordinary statement of its own, as a busy
 * backend would write them. One in ten is aimed at the three people of the page, within bounds that a person can follow.
 *
 * What must hold: the rate is a ceiling, never made up for later; tables stay bounded (likes and follows toggle, old comments
 * of the crowd go); a database that is away stops nothing but the traffic.
 */
import type pg from 'pg';
import { messageOf } from '../errors.js';
import type { People } from './people.js';

export const maxRate = 2000;

export interface SimulatorState {
  /** Wanted writes per second; 0: stopped. */
  readonly rate: number;
  /** Writes that were committed. */
  readonly written: number;
  /** Of the last write that failed, until one succeeds. */
  readonly error: string | null;
}

const tickMs = 10;
/** Writes under way at once, and so also connections. */
export const simulatorConnections = 8;
/** The crowd's comments that stay. */
const keptComments = 1000;
/** At the three: per second, so that their lists stay readable whatever the rate. */
const aimedLikesPerSecond = 20;
const aimedCommentsPerSecond = 0.5;
/** After a failed write. */
const restMs = 500;

const remarks = [
  'Lovely.',
  'How did you do that?',
  'Count me in.',
  'I was there too!',
  'This made my day.',
  'More of this, please.',
];

/** Toggles in one statement, so that it takes no look before. */
const toggleLike = `
  with gone as (delete from likes where user_id = $1 and post_id = $2 returning 1)
  insert into likes (user_id, post_id) select $1, $2 where not exists (select from gone) on conflict do nothing`;
const toggleFollow = `
  with gone as (delete from follows where follower_id = $1 and followed_id = $2 returning 1)
  insert into follows (follower_id, followed_id) select $1, $2 where not exists (select from gone) on conflict do nothing`;

export class Simulator {
  #rate = 0;
  #written = 0;
  #error: string | null = null;
  #credit = 0;
  #aimedLikes = 0;
  #aimedComments = 0;
  #lastTick = 0;
  #restUntil = 0;
  #underWay = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | null = null;
  readonly #comments: string[] = [];

  constructor(
    private readonly pool: pg.Pool,
    private readonly people: People,
  ) {}

  get state(): SimulatorState {
    return { rate: this.#rate, written: this.#written, error: this.#error };
  }

  /** Writes per second, 0 to `maxRate`; 0 stops. */
  setRate(rate: number): void {
    this.#rate = Math.min(Math.max(rate, 0), maxRate);
    if (this.#rate === 0) {
      this.#error = null;
      this.#clearTimer();
    } else if (this.#timer === null) {
      this.#lastTick = performance.now();
      this.#timer = setInterval(() => this.#tick(), tickMs);
    }
  }

  /** Ends; idempotent. Waits for what is under way. */
  async stop(): Promise<void> {
    this.setRate(0);
    await Promise.all(this.#underWay);
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #tick(): void {
    const at = performance.now();
    const elapsed = (at - this.#lastTick) / 1000;
    this.#lastTick = at;
    if (at < this.#restUntil) return;
    // At most a twentieth of a second is made up for: what the database could not take is not written later.
    this.#credit = Math.min(this.#credit + elapsed * this.#rate, Math.max(1, this.#rate / 20));
    this.#aimedLikes = Math.min(this.#aimedLikes + elapsed * aimedLikesPerSecond, 1);
    this.#aimedComments = Math.min(this.#aimedComments + elapsed * aimedCommentsPerSecond, 1);
    while (this.#credit >= 1 && this.#underWay.size < simulatorConnections) {
      this.#credit -= 1;
      const write: Promise<void> = this.#write().finally(() => this.#underWay.delete(write));
      this.#underWay.add(write);
    }
  }

  async #write(): Promise<void> {
    try {
      await this.#choose();
      this.#written += 1;
      this.#error = null;
    } catch (error) {
      this.#error = messageOf(error);
      this.#restUntil = performance.now() + restMs;
    }
  }

  async #choose(): Promise<void> {
    const { cast, crowd, castPosts, crowdPosts } = this.people;
    const actor = pick(crowd).id;
    const aimed = Math.random() < 0.1;
    const kind = Math.random();
    if (kind < 0.7) {
      const atThree = aimed && this.#aimedLikes >= 1;
      if (atThree) this.#aimedLikes -= 1;
      await this.pool.query(toggleLike, [actor, pick(atThree ? castPosts : crowdPosts)]);
    } else if (kind < 0.9) {
      const atThree = aimed && this.#aimedComments >= 1;
      if (atThree) this.#aimedComments -= 1;
      await this.#comment(actor, pick(atThree ? castPosts : crowdPosts));
    } else {
      const atThree = aimed && this.#aimedLikes >= 1;
      if (atThree) this.#aimedLikes -= 1;
      const followed = pick(atThree ? cast : crowd).id;
      if (followed !== actor) await this.pool.query(toggleFollow, [actor, followed]);
    }
  }

  /** A new comment, or, where enough stand, the end of the oldest. */
  async #comment(actor: string, post: string): Promise<void> {
    const oldest = this.#comments.length >= keptComments ? this.#comments.shift() : undefined;
    if (oldest !== undefined) {
      await this.pool.query('delete from comments where id = $1', [oldest]);
      return;
    }
    const { rows } = await this.pool.query<{ id: string }>(
      'insert into comments (user_id, post_id, content) values ($1, $2, $3) returning id',
      [actor, post, pick(remarks)],
    );
    const id = rows[0]?.id;
    if (id !== undefined) this.#comments.push(id);
  }
}

function pick<T>(list: readonly T[]): T {
  const item = list[Math.floor(Math.random() * list.length)];
  if (item === undefined) throw new Error('There is nobody to pick.');
  return item;
}
