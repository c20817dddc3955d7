/**
 * One batch: plan, load facts, decide, store, publish.
 *
 * A batch is stored in one transaction (inbox/store.ts), which also moves the cursor. What is published afterwards is a hint: gateways
 * fetch what they missed. The rules know neither clock nor database; both are here.
 */

import type pg from 'pg';
import { shownCount } from '../broker/broker.js';
import type { Broker, Publication } from '../broker/broker.js';
import { nowMs } from '../clock.js';
import type { Config, Source } from '../config.js';
import { BelfryError, messageOf } from '../errors.js';
import { Messages } from '../inbox/messages.js';
import { storeBatch, storeRevocations, StaleFacts } from '../inbox/store.js';
import type { Batch, CursorStep, StoredBatch, Verdict } from '../inbox/store.js';
import type { Logger } from '../log.js';
import type { GroupFact } from '../rules/group.js';
import type { PrivacyFacts } from '../rules/privacy.js';
import { inTransaction } from '../postgres/transaction.js';
import { Ahead } from './ahead.js';
import type { FactsAhead } from './ahead.js';
import type { WriterPlans } from './connections.js';
import { decide } from './plan/decide.js';
import type { Decision } from './plan/decide.js';
import { counterKey, loadDueGroups, loadGroupFacts, loadThreadGroups } from './facts/group-facts.js';
import type { LoadedGroups } from './facts/group-facts.js';
import { planPage } from './plan/plan.js';
import type { Plan } from './plan/plan.js';
import type { DeliverStep, Step } from './plan/steps.js';
import type { PrivacyLoader, Question } from './facts/privacy-facts.js';
import { publicationsOf } from './publish.js';
import { groupQuestionsOf, mutedThreads, pageQuestionsOf } from './plan/questions.js';
import { privacyQuestionsOf, sizeOf, threadKindsOf } from './plan/questions.js';
import type { PageEvent } from './plan/resolved.js';
import { loadShown } from './facts/shown.js';
import type { Spoiled } from './facts/shown.js';
import { SharedSubjects } from './facts/subjects.js';
import type { Told } from './facts/subjects.js';
import { WideEvents } from './wide/wide.js';
import type { WideStep } from './wide/wide.js';
import { flush } from './windows.js';
import type { FlushOutcome, FlushParts } from './windows.js';

/** How often a batch is decided anew because somebody archived meanwhile what it changes; beyond that something else is wrong. */
const maxStaleRetries = 20;

export interface BatchConnections {
  /** Reads the application's tables. */
  readonly reader: pg.ClientBase;
  /** Reads and writes Belfry's own tables; session writerSession. */
  readonly writer: pg.ClientBase;
  readonly plans: WriterPlans;
  /** Reads Belfry's own tables while `writer` stores; the same session. */
  readonly ahead: pg.ClientBase;
  readonly aheadPlans: WriterPlans;
}

export interface BatchOutcome {
  readonly deliveries: number;
  /** Jobs that were opened for wide events. */
  readonly wide?: number;
  /** Events that were taken back, one per recipient. */
  readonly withdrawn: number;
  readonly verdicts: readonly Verdict[];
  /** When the earliest new window is due, by the database's clock. */
  readonly dueAtMs: number | null;
  readonly storedAtMs: number;
  readonly publications: readonly Publication[];
}

/** What can be done for a batch before the one before it is stored. */
export interface Preparation {
  readonly events: readonly PageEvent[];
  readonly plan: Plan;
  readonly privacy: Promise<PrivacyFacts>;
  /** Null: loaded when the batch's turn comes. */
  readonly groups: FactsAhead | null;
  /** By a replay: a verdict that somebody has an event already says nothing new, and is not kept. */
  readonly replayed?: true;
  /** By a replay: the rows of wide events as they are now, by `counterKey`; their mapped columns as JSON. */
  readonly rows?: ReadonlyMap<string, string>;
  /** Written in the transaction that stores the batch. */
  readonly also?: (client: pg.ClientBase) => Promise<void>;
}

export class BatchProcessor {
  private readonly rules: ReadonlyMap<string, Config['aggregation'][string]>;
  private readonly sources: ReadonlyMap<string, Source>;
  private readonly ahead = new Ahead();
  private readonly messages: Messages;
  private readonly wide = new WideEvents();
  private readonly subjects: SharedSubjects;
  private readonly threadKinds: readonly string[];

  constructor(
    private readonly config: Config,
    private readonly privacy: PrivacyLoader,
    private readonly broker: Broker,
    /** Null where batches are only judged, and nothing is stored or told. */
    private readonly log: Pick<Logger, 'error'> | null,
  ) {
    this.rules = new Map(Object.entries(config.aggregation));
    this.messages = new Messages(config.templates);
    this.subjects = new SharedSubjects(config);
    this.sources = new Map(config.sources.map((source) => [source.name, source]));
    this.threadKinds = threadKindsOf(config);
  }

  /**
   * Plans a batch and begins to load facts about its people. They are older than the batch by the storing of one batch at most; a block
   * that is set in between is an event of its own, which withdraws. `ahead`: the batch before this one is still being stored, so there is
   * time to load the groups too.
   */
  prepare(connections: BatchConnections, events: readonly PageEvent[], ahead = false): Preparation {
    const plan = planPage(events, {
      sources: this.sources,
      groups: (type) => this.rules.has(type),
      blocksBothWays: this.config.blocks?.direction !== 'one',
      mutesBothWays: this.config.mutes?.direction === 'both',
    });
    const privacy = this.privacy.load(connections.reader, this.questionsOf(plan));
    // `process` awaits it and throws what it throws; until then a failure must not count as unhandled.
    privacy.catch(() => undefined);
    const groups =
      ahead && !this.wide.concerns(plan)
        ? this.ahead.load(connections.ahead, connections.aheadPlans, pageQuestionsOf(plan, events.length))
        : null;
    return { events, plan, privacy, groups };
  }

  /** Something was written outside the batches: facts that were loaded ahead no longer hold. */
  forget(): void {
    this.ahead.forget();
  }

  /**
   * Stores what these events come to, and publishes it. Throws what storeBatch throws, and BatchTooLarge; then nothing was written. `sent`
   * is called as soon as the storing statement is sent: what it sends over the same connection runs right after that statement.
   */
  async process(
    connections: BatchConnections,
    term: string,
    prepared: Preparation,
    cursor: CursorStep | null,
    sent?: () => void,
  ): Promise<BatchOutcome> {
    await connections.plans.expect(sizeOf(prepared.events.length, prepared.plan));
    const { plan, wide } = await this.wide.divert(connections.writer, prepared.plan);
    const revokes = plan.revoked.length + plan.revokedSessions.length > 0;
    const also = async (client: pg.ClientBase): Promise<void> => {
      if (wide.length > 0) await this.wide.open(client, wide, prepared.rows);
      if (revokes) await storeRevocations(client, plan);
      await prepared.also?.(client);
    };
    const plain = wide.length === 0 && !revokes && prepared.also === undefined;
    const outcome = plain
      ? await this.store(connections, term, { ...prepared, plan }, cursor, null, null, sent)
      : await this.store(connections, term, { ...prepared, plan }, cursor, null, also);
    return { ...outcome, wide: wide.length };
  }

  /** The same for one step of a wide event and these recipients; `also` is written in its transaction. Throws what `process` throws. */
  async processWide(
    connections: BatchConnections,
    term: string,
    step: Step,
    recipients: readonly string[],
    also: (client: pg.ClientBase) => Promise<void>,
  ): Promise<BatchOutcome> {
    await connections.plans.expect(recipients.length);
    const plan: Plan = { ...planPage([], { sources: this.sources, groups: () => false }), steps: [step] };
    const privacy = this.privacy.load(connections.reader, this.questionsOf(plan));
    privacy.catch(() => undefined);
    return await this.store(connections, term, { events: [], plan, privacy, groups: null }, null, recipients, also);
  }

  /** `recipients`: those of the one step of a wide event. `also`: written in the same transaction. */
  private async store(
    connections: BatchConnections,
    term: string,
    prepared: Preparation,
    cursor: CursorStep | null,
    recipients: readonly string[] | null,
    also: ((client: pg.ClientBase) => Promise<void>) | null,
    sent?: () => void,
  ): Promise<BatchOutcome> {
    const { plan } = prepared;
    const questions =
      recipients === null ? pageQuestionsOf(plan, prepared.events.length) : groupQuestionsOf(plan, recipients);
    for (let attempt = 1; ; attempt++) {
      const [privacy, loaded, threads, told] = await Promise.all([
        attempt === 1 ? prepared.privacy : this.privacy.load(connections.reader, this.questionsOf(plan)),
        attempt === 1 && prepared.groups !== null
          ? this.ahead.settle(connections.writer, questions, prepared.groups)
          : loadGroupFacts(connections.writer, questions),
        loadThreadGroups(connections.writer, mutedThreads(plan, this.threadKinds)),
        this.subjects.load(connections.writer, plan.steps),
      ]);
      const groups = threads.length === 0 ? loaded : { ...loaded, groups: mergedGroups(loaded.groups, threads) };
      const { batch, deliveries } = this.decide(plan, privacy, groups, told, cursor);
      try {
        const storing = together(connections.writer, also, () =>
          storeBatch(connections.writer, term, prepared.replayed === true ? withoutDuplicates(batch) : batch, (type) =>
            this.sampleOf(type),
          ),
        );
        if (attempt === 1) sent?.();
        const stored = await storing;
        this.ahead.stored(batch);
        return await published(this.publish(connections, plan, batch, stored, privacy, groups, deliveries));
      } catch (error) {
        if (!(error instanceof StaleFacts) || attempt >= maxStaleRetries) throw error;
      }
    }
  }

  /** What `process` would store now, and what it would leave to jobs. Stores nothing. Throws BatchTooLarge. */
  async judge(
    connections: Pick<BatchConnections, 'writer' | 'plans'>,
    prepared: Preparation,
  ): Promise<{ readonly batch: Batch; readonly wide: readonly WideStep[] }> {
    await connections.plans.expect(sizeOf(prepared.events.length, prepared.plan));
    const { plan, wide } = await this.wide.divert(connections.writer, prepared.plan);
    const groups = await loadGroupFacts(connections.writer, pageQuestionsOf(plan, prepared.events.length));
    const told = await this.subjects.load(connections.writer, plan.steps);
    return { batch: this.decide(plan, await prepared.privacy, groups, told, null).batch, wide };
  }

  /** What `process` would leave to jobs. */
  async wideSteps(connections: Pick<BatchConnections, 'writer'>, plan: Plan): Promise<readonly WideStep[]> {
    return (await this.wide.divert(connections.writer, plan)).wide;
  }

  /** What `processWide` would store now. Stores nothing. */
  async judgeWide(
    connections: Pick<BatchConnections, 'reader' | 'writer' | 'plans'>,
    step: DeliverStep,
    recipients: readonly string[],
  ): Promise<Batch> {
    await connections.plans.expect(recipients.length);
    const nothing = planPage([], { sources: this.sources, groups: () => false });
    const plan: Plan = { ...nothing, steps: [{ ...step, recipients, wide: false }] };
    const privacy = await this.privacy.load(connections.reader, this.questionsOf(plan));
    const groups = await loadGroupFacts(connections.writer, groupQuestionsOf(plan, recipients));
    const told = await this.subjects.load(connections.writer, plan.steps);
    return this.decide(plan, privacy, groups, told, null).batch;
  }

  /** Pushes the notifications of at most `limit` windows that are due, after asking the rules again; null when none is due. */
  async flushDue(connections: BatchConnections, term: string, limit: number): Promise<FlushOutcome | null> {
    const nothing = planPage([], { sources: this.sources, groups: () => false });
    const parts: FlushParts = {
      rules: this.rules,
      sources: this.config.sources,
      load: (questions) => this.privacy.load(connections.reader, questions),
      store: async (batch) => {
        const stored = await storeBatch(connections.writer, term, batch, (type) => this.sampleOf(type));
        this.ahead.stored(batch);
        return stored;
      },
      publish: async (batch, stored, privacy) =>
        (await published(this.publish(connections, nothing, batch, stored, privacy, null, 0))).publications,
      silenced: (notificationId, error) =>
        this.spoiled(
          'whether this may be shown cannot be asked: its window ends without a word',
          { notificationId },
          error,
        ),
    };
    for (let attempt = 1; ; attempt++) {
      const due = await loadDueGroups(connections.writer, limit);
      if (due.through === null) return null;
      await connections.plans.expect(due.groups.length);
      try {
        return { publications: await flush(parts, due), full: due.ended >= limit };
      } catch (error) {
        if (!(error instanceof StaleFacts) || attempt >= maxStaleRetries) throw error;
      }
    }
  }

  private async publish(
    connections: BatchConnections,
    plan: Plan,
    batch: Batch,
    stored: StoredBatch,
    privacy: PrivacyFacts,
    groups: LoadedGroups | null,
    deliveries: number,
  ): Promise<BatchOutcome> {
    const storedAtMs = nowMs();
    const shown = stored.pushed.filter(({ draft }) => !draft.withdrawn && this.broker.mayHaveSessions(draft.userId));
    const seen = await loadShown(connections.reader, this.privacy, privacy, shown, (what, error) =>
      this.spoiled('whether this may be shown cannot be asked: it is not', what, error),
    );
    const counts = batch.counters.flatMap(({ source, objectId }, i) => {
      const moved = plan.counters.get(counterKey(source, objectId));
      return moved === undefined ? [] : [{ moved, count: shownCount(stored.counts[i]) }];
    });
    const publications = publicationsOf({
      ...{ stored, counts, plan },
      ...seen,
      messages: this.messages,
      broker: this.broker,
    });
    this.broker.publish(publications);
    let dueAtMs: number | null = null;
    for (const draft of batch.drafts) {
      if (!draft.push && draft.dueAtMs !== null && (dueAtMs === null || draft.dueAtMs < dueAtMs))
        dueAtMs = draft.dueAtMs;
    }
    // From the database's clock to this process's, by which timers run.
    if (dueAtMs !== null && groups !== null) dueAtMs += Date.now() - groups.nowMs;
    return { deliveries, withdrawn: batch.removed.length, verdicts: batch.verdicts, dueAtMs, storedAtMs, publications };
  }

  private decide(
    plan: Plan,
    privacy: PrivacyFacts,
    groups: LoadedGroups,
    told: Told,
    cursor: CursorStep | null,
  ): Decision {
    return decide(
      this.rules,
      { plan, privacy, groups, mutedThreads: mutedThreads(plan, this.threadKinds), told },
      cursor,
    );
  }

  /** What must be known of people: for every event and recipient, and whether new mutes are in force. */
  questionsOf(plan: Plan): Question[] {
    return privacyQuestionsOf(plan, mutedThreads(plan, this.threadKinds));
  }

  /** The config's SQL fails on a row: of that, nothing is shown. */
  private spoiled(message: string, what: Spoiled, error: unknown): void {
    this.log?.error({ ...what, error: messageOf(error) }, message);
  }

  private sampleOf(type: string): number {
    return this.rules.get(type)?.sample ?? 1;
  }
}

/** Stores in one transaction with `also`; without `also` the storing statement is a transaction by itself. */
async function together<T>(
  client: pg.ClientBase,
  also: ((client: pg.ClientBase) => Promise<void>) | null,
  store: () => Promise<T>,
): Promise<T> {
  if (also === null) return await store();
  return await inTransaction(client, async () => {
    await also(client);
    return await store();
  });
}

/**
 * A batch that is stored must never be tried again: its counters would move twice. Whatever fails after the commit ends
 * the term; the next one goes on from the stored cursor, and the gateways fetch what was not published.
 */
async function published(work: Promise<BatchOutcome>): Promise<BatchOutcome> {
  try {
    return await work;
  } catch (error) {
    throw new BelfryError('unavailable', `A stored batch could not be published: ${messageOf(error)}`, {
      retry: true,
      cause: error,
    });
  }
}

function withoutDuplicates(batch: Batch): Batch {
  return { ...batch, verdicts: batch.verdicts.filter(({ rule }) => rule !== 'duplicate') };
}

function mergedGroups(groups: readonly GroupFact[], more: readonly GroupFact[]): readonly GroupFact[] {
  const known = new Set(groups.map(({ id }) => id));
  return [...groups, ...more.filter(({ id }) => !known.has(id))];
}
