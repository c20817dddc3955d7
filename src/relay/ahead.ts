/**
 * Group facts of a batch, loaded while the batch before it is still being stored.
 *
 * In a backlog the writer would otherwise wait for facts and the facts for the writer. What must hold: whatever is written after the facts
 * were asked for is noted, and asked for again when the batch's turn comes. Whoever writes outside the batches calls `forget`.
 */

import type pg from 'pg';
import type { Batch } from '../inbox/store.js';
import { groupId, notificationOf } from '../rules/group.js';
import type { WriterPlans } from './connections.js';
import { counterKey, loadGroupFacts } from './facts/group-facts.js';
import type { GroupQuestions, LoadedGroups } from './facts/group-facts.js';

/** What was written since: notifications by id and by group, rows and counters by key. */
class Written {
  readonly ids = new Set<string>();
  readonly groups = new Set<string>();
  readonly rows = new Set<string>();
  readonly counters = new Set<string>();
  everything = false;

  add(batch: Batch): void {
    for (const draft of batch.drafts) {
      if (draft.id !== null) this.ids.add(draft.id);
      this.groups.add(groupId(draft));
    }
    // An event that is taken back is found by its notification, which changed as well.
    for (const { source, key } of batch.added) this.rows.add(counterKey(source, key));
    for (const { source, key } of batch.held) this.rows.add(counterKey(source, key));
    for (const { source, objectId } of batch.counters) this.counters.add(counterKey(source, objectId));
  }
}

/** Facts that were loaded ahead, and what was written meanwhile. */
export interface FactsAhead {
  readonly facts: Promise<LoadedGroups>;
  readonly written: Written;
}

export class Ahead {
  /** Belongs to the facts that were loaded last: the batch before them is still to be stored, and is noted here. */
  private waiting: Written | null = null;

  /** Begins to load; `settle` throws what fails. Null for questions about all that is between two people: such answers have no key to note. */
  load(client: pg.ClientBase, plans: WriterPlans, questions: GroupQuestions): FactsAhead | null {
    if (questions.between.length > 0) return null;
    const written = new Written();
    this.waiting = written;
    const facts = plans.expect(questions.wanted.length).then(() => loadGroupFacts(client, questions));
    facts.catch(() => undefined);
    return { facts, written };
  }

  /** To be called with every batch that was stored. */
  stored(batch: Batch): void {
    this.waiting?.add(batch);
  }

  /** Something else was written: what was loaded ahead must be loaded anew. */
  forget(): void {
    if (this.waiting !== null) this.waiting.everything = true;
  }

  /** The facts as they are now; asks again, over `client`, about what was written since they were loaded. */
  async settle(client: pg.ClientBase, questions: GroupQuestions, ahead: FactsAhead): Promise<LoadedGroups> {
    const { facts, written } = ahead;
    const loaded = await facts;
    if (written.everything) return await loadGroupFacts(client, questions);
    const again = askAgain(questions, loaded, written);
    return again === null ? loaded : merged(loaded, await loadGroupFacts(client, again), again, written);
  }
}

/** The questions whose answers may have changed; null when there are none. */
function askAgain(questions: GroupQuestions, loaded: LoadedGroups, written: Written): GroupQuestions | null {
  const rows = new Set(written.rows);
  // An event is loaded together with its notification: where that was written, the event is asked for again.
  for (const { source, key, notificationId } of loaded.shares)
    if (written.ids.has(notificationId)) rows.add(counterKey(source, key));
  const again: GroupQuestions = {
    wanted: questions.wanted.filter((group) => written.groups.has(groupId(group))),
    rows: questions.rows.filter(({ source, key }) => rows.has(counterKey(source, key))),
    mayBeHeld: questions.mayBeHeld.filter(({ source, key }) => rows.has(counterKey(source, key))),
    between: [],
    counters: questions.counters.filter(({ source, objectId }) => written.counters.has(counterKey(source, objectId))),
  };
  const lists: readonly (readonly unknown[])[] = Object.values(again);
  return lists.every((list) => list.length === 0) ? null : again;
}

/** The answers that still hold, and the new ones for what was asked again. */
function merged(old: LoadedGroups, now: LoadedGroups, again: GroupQuestions, written: Written): LoadedGroups {
  const asked = new Set(again.rows.map(({ source, key }) => counterKey(source, key)));
  const held = new Set(again.mayBeHeld.map(({ source, key }) => counterKey(source, key)));
  const fresh = new Set(now.groups.map(({ id }) => id));
  return {
    nowMs: now.nowMs,
    groups: [...old.groups.filter(({ id }) => !fresh.has(id)), ...now.groups],
    shares: [...old.shares.filter(({ source, key }) => !asked.has(counterKey(source, key))), ...now.shares],
    members: new Map([...[...old.members].filter(([key]) => !written.ids.has(notificationOf(key))), ...now.members]),
    counters: new Map([...old.counters, ...now.counters]),
    held: new Set([...[...old.held].filter((key) => !held.has(key)), ...now.held]),
    fromBlocked: now.fromBlocked,
  };
}
