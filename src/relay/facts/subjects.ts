/**
 * One thing, told once: a comment that answers somebody and mentions them too is one notification, the first.
 *
 * Asked only where several sources tell of subjects of the same kind, so that all others pay nothing.
 */

import type pg from 'pg';
import type { Config } from '../../config.js';
import { textArray } from '../../postgres/arrays.js';
import type { DeliverStep, Step } from '../plan/steps.js';

/** Who has been told of which subject, by which actor; with the key of the notification that did. */
export interface Told {
  /** Whether another notification of this person tells of the step's subject. */
  elsewhere(step: DeliverStep, userId: string): boolean;
  add(step: DeliverStep, userId: string): void;
}

const nothing: Told = { elsewhere: () => false, add: () => undefined };

export class SharedSubjects {
  private readonly kinds: ReadonlySet<string>;

  constructor(config: Config) {
    const kinds = config.sources.flatMap(({ subject, recipient }) =>
      subject === null || recipient === null ? [] : [subject.kind],
    );
    this.kinds = new Set(kinds.filter((kind, i) => kinds.indexOf(kind) < i));
  }

  /** One statement, if one of these steps has such a subject. */
  async load(client: pg.ClientBase, steps: readonly Step[]): Promise<Told> {
    const asked = steps.flatMap((step) =>
      step.kind === 'deliver' && this.applies(step) ? step.recipients.map((userId) => ({ step, userId })) : [],
    );
    if (asked.length === 0) return nothing;
    const told = new Map<string, string>();
    const { rows } = await client.query<{
      user_id: string;
      kind: string;
      id: string;
      actor: string;
      group_key: string;
    }>({
      name: 'belfry_subjects',
      text: `select n.user_id, n.subject_kind as kind, n.subject_id as id, n.actors[1] as actor, n.group_key
               from unnest($1::text[], $2::text[], $3::text[]) u(user_id, kind, id)
               join belfry.notification n on n.subject_kind = u.kind and n.subject_id = u.id and n.user_id = u.user_id
              where n.subject_id is not null and not n.withdrawn and n.actors <> '{}'`,
      values: [
        textArray(asked.map(({ userId }) => userId)),
        textArray(asked.map(({ step }) => step.subjectKind)),
        textArray(asked.map(({ step }) => step.subjectId)),
      ],
    });
    for (const { user_id, kind, id, actor, group_key } of rows) told.set(keyOf(user_id, kind, id, actor), group_key);
    return {
      elsewhere: (step, userId) => {
        if (!this.applies(step)) return false;
        const by = told.get(keyOf(userId, step.subjectKind, step.subjectId, step.actorId));
        return by !== undefined && by !== step.groupKey;
      },
      add: (step, userId) => {
        if (this.applies(step)) told.set(keyOf(userId, step.subjectKind, step.subjectId, step.actorId), step.groupKey);
      },
    };
  }

  private applies({ subjectKind, subjectId, actorId }: DeliverStep): boolean {
    return subjectKind !== null && subjectId !== null && actorId !== null && this.kinds.has(subjectKind);
  }
}

function keyOf(userId: string, kind: string | null, id: string | null, actor: string | null): string {
  return `${userId}\0${kind ?? ''}\0${id ?? ''}\0${actor ?? ''}`;
}
