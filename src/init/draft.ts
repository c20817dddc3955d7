/**
 * What `init` would write: choices with their reasons, and questions where two readings are possible.
 *
 * A choice that a question is about is never made silently: either the question has a fallback, which is written with the question beside
 * it, or it has none, and each of its readings is written as a comment, to be uncommented.
 */

import type { TableName } from '../postgres/sql.js';

export interface Because<Value> {
  readonly value: Value;
  readonly reason: string;
}

export interface Hop {
  /** In the first hop only. */
  readonly from?: string;
  readonly table: string;
  readonly match: string;
  readonly take: string;
}

export type PersonSpec = string | { readonly path: readonly Hop[] } | { readonly query: string };

export interface SourceDraft {
  readonly name: string;
  readonly type: string;
  readonly table: TableName;
  /** Why this table is of that type. */
  readonly reason: string;
  readonly key: Because<readonly string[]>;
  readonly actor: Because<Exclude<PersonSpec, { query: string }>> | null;
  readonly object: Because<{ readonly kind: string; readonly id: string }> | null;
  readonly subject: Because<{ readonly kind: string; readonly id: string }> | null;
  readonly recipient: Because<PersonSpec | { readonly list: string }> | null;
  readonly channels: Because<readonly string[]> | null;
  readonly counter: Because<{ readonly event: string; readonly field: string }> | null;
  readonly include: Because<readonly string[]> | null;
  readonly when: Because<string> | null;
  /** Found for all sources alike, when they are complete. */
  readonly time?: Because<string> | null;
  /** Ids of questions that it depends on. */
  readonly questions: readonly string[];
  /** The answer under which this is right, of a question without a fallback: written as a comment. */
  readonly reading: { readonly question: string; readonly choice: string } | null;
}

export interface PeopleDraft {
  readonly table: Because<TableName>;
  readonly id: Because<string>;
  readonly name: Because<string> | null;
  readonly enabled: Because<string> | null;
  readonly active: Because<string> | null;
  readonly locale: Because<string> | null;
}

/** blocks, mutes or threadMutes: keys of the section besides `table`, each with its reason. */
export interface PairDraft {
  readonly section: 'blocks' | 'mutes' | 'threadMutes';
  readonly table: TableName;
  readonly reason: string;
  readonly fields: Readonly<Record<string, Because<string>>>;
  readonly questions: readonly string[];
  readonly reading: SourceDraft['reading'];
}

export interface ChannelDraft {
  readonly kind: string;
  readonly read: Because<string>;
  readonly questions: readonly string[];
}

export interface Question {
  /** Stable: of what it is about, and what about it. */
  readonly id: string;
  readonly text: string;
  readonly choices: readonly { readonly id: string; readonly text: string }[];
  /** What is written while nobody has answered; null: nothing, the readings stand there as comments. */
  readonly fallback: string | null;
  readonly answer: string | null;
}

export interface Draft {
  /** E.g. Rails; null where no trace of one was found. */
  readonly framework: string | null;
  readonly people: PeopleDraft | null;
  readonly pairs: readonly PairDraft[];
  readonly sources: readonly SourceDraft[];
  readonly channels: readonly ChannelDraft[];
  readonly questions: readonly Question[];
  /** Tables with people in them of which nothing was made, with the reason. */
  readonly ignored: readonly { readonly table: TableName; readonly reason: string }[];
  /** What should be known besides. */
  readonly notes: readonly string[];
}
