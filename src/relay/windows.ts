/**
 * Windows that have ended: what waited in them is pushed, if its recipient may and wants to hear of it still.
 *
 * What must hold: a notification of which that can't be asked, since the SQL of the config fails on a row, keeps no other from its end: it waits
 * no longer, and is told nobody; an end is forgotten only with or after what waited for it.
 */

import type { Publication } from '../broker/broker.js';
import type { Config, Source } from '../config.js';
import { inHalves } from '../halves.js';
import { emptyBatch, StaleFacts } from '../inbox/store.js';
import type { Batch, StoredBatch } from '../inbox/store.js';
import { Aggregation } from '../rules/aggregate.js';
import type { Draft, GroupFact, GroupFacts } from '../rules/group.js';
import { suppressedBy } from '../rules/privacy.js';
import type { PrivacyFacts } from '../rules/privacy.js';
import { isPassing } from './failures.js';
import type { DueGroups } from './group-facts.js';
import type { Question } from './privacy-facts.js';
import { questionsOfGroup } from './questions.js';

export interface FlushParts {
  readonly rules: ReadonlyMap<string, Config['aggregation'][string]>;
  readonly sources: readonly Source[];
  load(questions: readonly Question[]): Promise<PrivacyFacts>;
  store(batch: Batch): Promise<StoredBatch>;
  publish(batch: Batch, stored: StoredBatch, privacy: PrivacyFacts): Promise<readonly Publication[]>;
  /** Nobody can tell whether the recipient of this notification may hear of it. */
  silenced(notificationId: string, error: unknown): void;
}

export interface FlushOutcome {
  readonly publications: readonly Publication[];
  /** There may be more windows that have ended. */
  readonly full: boolean;
}

/** Rules that say something of one actor, and nothing of the others behind a notification. */
const ofActor: ReadonlySet<string> = new Set(['blocked', 'muted', 'actor_gone', 'policy']);

/** Whether an error says nothing of a single row. */
const ofNoRow = (error: unknown): boolean => error instanceof StaleFacts || isPassing(error);

/** Throws what `store` and `publish` throw, StaleFacts among it: then some may have been told, and the rest is to be loaded anew. */
export async function flush(parts: FlushParts, due: DueGroups): Promise<Publication[]> {
  const publications: Publication[] = [];
  let together = false;
  const end = async (groups: readonly GroupFact[], privacy: PrivacyFacts | null): Promise<void> => {
    together = groups.length === due.groups.length;
    const drafts = draftsOf(parts, { ...due, groups }, privacy);
    const batch: Batch = { ...emptyBatch, drafts, windowsEnded: together ? due.through : null };
    const stored = await parts.store(batch);
    if (privacy !== null) publications.push(...(await parts.publish(batch, stored, privacy)));
  };
  await inHalves(
    due.groups,
    ofNoRow,
    async (groups) => end(groups, await parts.load(groups.flatMap((group) => questionsOfGroup(group, parts.sources)))),
    async (groups, error) => {
      if (ofNoRow(error)) throw error;
      await end(groups, null);
      for (const { id } of groups) parts.silenced(id, error);
    },
  );
  if (!together) await parts.store({ ...emptyBatch, windowsEnded: due.through });
  return publications;
}

/** What becomes of these; without facts all of them fall silent. */
function draftsOf({ rules, sources }: FlushParts, facts: GroupFacts, privacy: PrivacyFacts | null): Draft[] {
  const aggregation = new Aggregation(rules, facts);
  for (const group of facts.groups) {
    const verdicts =
      privacy === null
        ? []
        : questionsOfGroup(group, sources).map(({ source, delivery }) => suppressedBy(source, delivery, privacy));
    // One of those it shows is enough, and so is somebody who does not fit into the sample.
    const others = group.actorCount > group.actors.length;
    const wanted = verdicts.some((rule) => rule === null || (others && ofActor.has(rule)));
    if (wanted) aggregation.flush(group.id);
    else aggregation.silence(group.id);
  }
  return [...aggregation.drafts];
}
