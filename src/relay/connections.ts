/** How the relay's writing session plans, and which sources it reads besides those of the config. */

import type pg from 'pg';
import type { Config, Source } from '../config.js';
import { isAdapted } from '../schema/session.js';
import { blocksSource, mutesSource, threadMutesSource } from './plan/plan.js';

/**
 * The writer meets only Belfry's own tables, always by key: other ways to join than by index are forbidden, since
 * they look cheap while a table is small.
 */
export const writerSession = {
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  enable_hashjoin: 'off',
  enable_mergejoin: 'off',
  synchronous_commit: 'on',
} as const;

/** From this many events on, planning for the very arrays costs less than a plan for ten of them would. */
const largeBatch = 200;

/** First number of events after which plans are made anew. */
const firstDiscard = 64;

/**
 * Keeps the writer's plans right. Planning costs more than running a small batch, so small ones run on cached plans;
 * a plan made for a table with three rows is a disaster once it has a million, so the plans are made anew each time
 * the number of events has doubled; and a large batch is planned for itself.
 */
export class WriterPlans {
  private events = 0;
  private discardAt = firstDiscard;
  private large = false;

  constructor(private readonly writer: pg.ClientBase) {}

  /** To be called before a batch of so many events. Sends something only when there is something to change. */
  async expect(events: number): Promise<void> {
    this.events += events;
    // Such plans and settings would be somebody else's a moment later.
    if (isAdapted(this.writer)) return;
    const large = events >= largeBatch;
    const commands: string[] = [];
    if (large !== this.large)
      commands.push(`set plan_cache_mode = ${large ? 'force_custom_plan' : 'force_generic_plan'}`);
    if (this.events >= this.discardAt) commands.push('discard plans');
    if (commands.length === 0) return;
    await this.writer.query(commands.join('; '));
    this.large = large;
    if (this.events >= this.discardAt) this.discardAt = this.events * 2;
  }
}

/** The config's sources, and the tables of blocks and mutes as such, so that a new one can withdraw what it forbids. */
export function mappedSources(config: Config): readonly Source[] {
  const { blocks, mutes, threadMutes } = config;
  const sources = [...config.sources];
  if (blocks !== null) sources.push(relationSource(blocksSource, blocks, blocks.from, blocks.to));
  if (mutes !== null) {
    sources.push(relationSource(mutesSource, mutes, mutes.from, mutes.to));
  }
  if (threadMutes !== null)
    sources.push(relationSource(threadMutesSource, threadMutes, threadMutes.user, threadMutes.id));
  return sources;
}

interface Relation {
  readonly table: string;
  readonly when: string | null;
  readonly until: string | null;
}

/** One that was lengthened is another one. */
function relationSource(name: string, { table, when, until }: Relation, from: string, to: string): Source {
  return {
    name,
    type: 'relation',
    table,
    key: [from, to],
    actor: { kind: 'column', column: from },
    object: { kind: 'other', id: to },
    subject: null,
    recipient: null,
    channels: [],
    counter: null,
    include: until === null ? [] : [until],
    when,
    time: null,
    visible: null,
    capture: 'statement',
    onError: 'available',
  };
}
