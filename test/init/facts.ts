/**
 * Facts about a schema, one a line, and what became of them in a draft: right, asked about, or silently wrong.
 *
 *     people.name = full_name                        a key of people, blocks, mutes or channels.<kind>
 *     public.likes like post: actor = user_id        of the source from this table, of this type, with an object of this kind
 *     …: recipient = post_id -> public.posts(id -> user_id)
 *     …: when names deleted_at                       the value contains it
 *     asks public.x.direction                        the question is there
 *     nothing of public.jobs                         no source, and nobody's blocks or mutes
 */

import { tableText } from '../../src/init/database.js';
import type { Because, Draft, PersonSpec, SourceDraft } from '../../src/init/draft.js';

export type Verdict = 'right' | 'asked' | 'wrong';

export interface Judged {
  readonly fact: string;
  readonly verdict: Verdict;
  /** What is there instead. */
  readonly found: string;
}

export function judge(draft: Draft, fact: string): Judged {
  const asks = /^asks (.+)$/.exec(fact)?.[1];
  if (asks !== undefined) {
    const ids = draft.questions.map(({ id }) => id);
    return { fact, verdict: ids.includes(asks) ? 'right' : 'wrong', found: ids.join(', ') };
  }
  const table = /^nothing of (.+)$/.exec(fact)?.[1];
  if (table !== undefined) {
    const of = [...draft.sources, ...draft.pairs].filter(
      (item) => item.reading === null && tableText(item.table) === table,
    );
    return { fact, verdict: of.length === 0 ? 'right' : 'wrong', found: `${String(of.length)} sources` };
  }
  const match = /^(.+?)(?: (=|names)(?: (.*))?)$/s.exec(fact);
  const [, subject, relation, wanted = ''] = match ?? [];
  if (subject === undefined) throw new Error(`not a fact: ${fact}`);
  const { value, asked } = valueOf(draft, subject);
  const isRight = relation === '=' ? value === wanted : value.includes(wanted);
  return { fact, verdict: isRight ? 'right' : asked ? 'asked' : 'wrong', found: value };
}

/** Tables and types of sources that stand in no fact: things that were made up. */
export function unexpected(draft: Draft, facts: readonly string[]): string[] {
  return draft.sources
    .filter(({ reading }) => reading === null)
    .map(labelOf)
    .filter((label) => !facts.some((fact) => fact.startsWith(`${label}:`)));
}

function labelOf(source: SourceDraft): string {
  return [tableText(source.table), source.type, source.object?.value.kind]
    .filter((part) => part !== undefined)
    .join(' ');
}

function valueOf(draft: Draft, subject: string): { value: string; asked: boolean } {
  const [label, key] = subject.split(/: (?=\w+$)/);
  if (key !== undefined) {
    const source = draft.sources.find((item) => item.reading === null && labelOf(item) === label);
    const table = label?.split(' ')[0] ?? '';
    const asked =
      source === undefined ? draft.questions.some(({ id }) => id.startsWith(table)) : source.questions.length > 0;
    if (source === undefined) return { value: '(no such source)', asked };
    return { value: text(source[key as keyof SourceDraft] as Because<unknown> | null), asked };
  }
  const parts = subject.split('.');
  const field = parts.at(-1) ?? '';
  switch (parts[0]) {
    case 'people': {
      const found = draft.people?.[field as keyof typeof draft.people] ?? null;
      return {
        value: field === 'table' && draft.people !== null ? tableText(draft.people.table.value) : text(found),
        asked: draft.questions.some(({ id }) => id === 'people'),
      };
    }
    case 'channels': {
      const channel = draft.channels.find(({ kind }) => kind === parts[1]);
      return { value: channel?.read.value ?? '(none)', asked: (channel?.questions.length ?? 0) > 0 };
    }
    default: {
      const pair = draft.pairs.find((item) => item.section === parts[0] && item.reading === null);
      const value = field === 'table' && pair !== undefined ? tableText(pair.table) : text(pair?.fields[field] ?? null);
      return { value, asked: draft.questions.some(({ id }) => id === parts[0]) };
    }
  }
}

function text(because: Because<unknown> | null | undefined): string {
  if (because === null || because === undefined) return '';
  const { value } = because;
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.join(' ');
  const spec = value as PersonSpec | Record<string, string>;
  if (typeof spec === 'object' && 'path' in spec && Array.isArray(spec.path)) {
    return spec.path
      .map((hop, i) => `${i === 0 ? `${hop.from ?? ''} -> ` : ' -> '}${hop.table}(${hop.match} -> ${hop.take})`)
      .join('');
  }
  return typeof spec === 'object' && 'query' in spec ? String(spec.query) : Object.values(spec).join(' ');
}
