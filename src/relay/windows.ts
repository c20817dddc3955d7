/**
 * Windows that have ended: what waited in them is pushed, if its recipient still may and wants to hear of it; one of nobody but suspended
 * people is taken away.
 *
 * What must hold: where that can't be asked, since the SQL of the config fails on a row, this one notification waits no longer and is pushed
 * to nobody; the others are not kept from their push. The end of a window is deleted only together with, or after, what waited for it.
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
import type { DueGroups } from './facts/group-facts.js';
import type { Question } from './facts/privacy-facts.js';
import { questionsOfGroup } from './plan/questions.js';

export interface FlushParts {
  readonly rules: ReadonlyMap<string, Config['aggregation'][string]>;
  readonly sources: readonly Source[];
  load(questions: readonly Question[]): Promise<PrivacyFacts>;
  store(batch: Batch): Promise<StoredBatch>;
  publish(batch: Batch, stored: StoredBatch, privacy: PrivacyFacts): Promise<readonly Publication[]>;
  /** Whether the recipient may hear of this notification can't be asked. */
  silenced(notificationId: string, error: unknown): void;
}

export interface FlushOutcome {
  readonly publications: readonly Publication[];
  /** There may be more windows that have ended. */
  readonly full: boolean;
}

/** Rules that judge one actor, and say nothing of the others behind a notification. */
const ofActor: ReadonlySet<string> = new Set(['blocked', 'muted', 'actor_gone', 'policy']);

/** Whether an error is no single row's fault. */
const ofNoRow = (error: unknown): boolean => error instanceof StaleFacts || isPassing(error);

/** Throws what `store` and `publish` throw, StaleFacts included. Some may have been pushed by then; the rest must be loaded anew. */
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

/** What becomes of these notifications; where privacy is null nothing of them is pushed. */
function draftsOf({ rules, sources }: FlushParts, facts: GroupFacts, privacy: PrivacyFacts | null): Draft[] {
  const aggregation = new Aggregation(rules, facts);
  for (const group of facts.groups) {
    const verdicts =
      privacy === null
        ? []
        : questionsOfGroup(group, sources).map(({ source, delivery }) => suppressedBy(source, delivery, privacy));
    // One shown actor whom the recipient wants to hear of is enough, and so is one beyond those shown.
    const others = group.actorCount > group.actors.length;
    const wanted = verdicts.some((rule) => rule === null || (others && ofActor.has(rule)));
    // Lists do not show it, and no event will say so, as one does of a block or mute: pushed, it is taken away (publish.ts) from pages that
    // still name somebody who left it meanwhile.
    const abandoned = !others && verdicts.length > 0 && verdicts.every((rule) => rule === 'actor_gone');
    if (wanted || abandoned) aggregation.flush(group.id);
    else aggregation.silence(group.id);
  }
  return [...aggregation.drafts];
}
