/**
 * Which table people are taken from: whose id the tokens hold. Pure. Where several could be, or none looks like it, it is asked; any table
 * with a key of one column may be the answer.
 */

import { tableText, type Database, type Table } from './database.js';
import type { Question } from './draft.js';
import { belongsTo, describePeople, idOf, peopleCandidates, type People } from './people.js';
import type { References } from './references.js';

export type Chosen =
  | { readonly people: null; readonly questions: readonly Question[] }
  | {
      readonly people: People;
      /** Tables whose rows stand for people, the chosen one among them. */
      readonly candidates: readonly Table[];
      readonly reason: string;
      readonly questions: readonly Question[];
    };

/** Offered where no table looks like people. */
const MAX_OFFERED = 5;

export function choosePeople(database: Database, references: References, answers: ReadonlyMap<string, string>): Chosen {
  const candidates = peopleCandidates(database, references);
  const answer = answers.get('people');
  const given = database.tables.find((table) => tableText(table) === answer && idOf(table) !== null);
  const { choices, likeliest, isSame } = likely(candidates, references);
  const table = given ?? likeliest;
  const id = table === undefined ? null : idOf(table);
  if (table === undefined || id === null) return { people: null, questions: [noPeople(database, references, answer)] };
  const count = references.to(table).length;
  const leading = `${String(count)} column${count === 1 ? '' : 's'} of other tables lead to it`;
  return {
    people: { table, id },
    candidates: [...new Set([...candidates, table])],
    reason: `${given === undefined ? 'by its name and columns' : 'as answered'}; ${leading}`,
    questions: given === undefined && (isSame || choices.length < 2) ? [] : [whoseId(choices, likeliest, given)],
  };
}

interface Likely {
  readonly choices: readonly Table[];
  readonly likeliest: Table | undefined;
  /** A row of one has the same id as its row of the others, so that it doesn't matter which is taken. */
  readonly isSame: boolean;
}

function likely(candidates: readonly Table[], references: References): Likely {
  const [best] = candidates;
  if (best === undefined) return { choices: [], likeliest: undefined, isSame: true };
  // A profile of a user, a login of an account: either could be whose id the tokens hold.
  const chain = [best];
  for (
    let next = belongsTo(best, candidates, references);
    next !== null && chain.length < 4;
    next = belongsTo(next.table, candidates, references)
  ) {
    if (chain.includes(next.table)) break;
    chain.push(next.table);
  }
  const below = candidates.filter(
    (table) =>
      !chain.includes(table) &&
      belongsTo(table, [best], references) !== null &&
      (references.to(table).length > 0 || table.columns.some(({ name }) => /password/i.test(name))),
  );
  const twins = candidates.filter((table) => table !== best && table.name === best.name);
  const choices = [...new Set([...chain.reverse(), ...below, ...twins])];
  const isSame = choices.every((table) => table === choices[0] || hasSharedKey(table, references));
  const first = twins.length > 0 ? best : (choices[0] ?? best);
  const isNamed = (table: Table): boolean => describePeople({ table, id: 'id' }, '').name !== null;
  return { choices, likeliest: isSame ? (choices.find(isNamed) ?? first) : first, isSame };
}

/** The row's own id is the other's: one row for each, as Supabase's profiles. */
function hasSharedKey(table: Table, references: References): boolean {
  const id = idOf(table);
  return id !== null && references.ofColumn(table, id)?.by === 'foreign key';
}

function whoseId(likely: readonly Table[], fallback: Table | undefined, given: Table | undefined): Question {
  const choices = [...new Set([...likely, ...(given === undefined ? [] : [given])])];
  return {
    id: 'people',
    text: `Whose id do your tokens hold (the \`sub\`)? ${likely.map(tableText).join(' and ')} look like people${likely.length === 2 ? ', both of them' : ''}.`,
    choices: choices.map((table) => ({ id: tableText(table), text: `a row of ${tableText(table)}` })),
    fallback: fallback === undefined ? null : tableText(fallback),
    answer: given === undefined ? null : tableText(given),
  };
}

/** Nothing is made meanwhile: a wrong table would send everything to the wrong inboxes. */
function noPeople(database: Database, references: References, answer: string | undefined): Question {
  const offered = database.tables
    .filter((table) => idOf(table) !== null)
    .map((table) => ({ table, count: references.to(table).length }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count)
    .slice(0, MAX_OFFERED);
  const none = { id: 'none', text: 'none of them: nothing is made' };
  return {
    id: 'people',
    text: 'Which table holds people? None looks like it, so nothing could be recognised. Any table may be the answer, by its name with the schema; or name it under people and write the sources (docs/configuration.md).',
    choices: [
      ...offered.map(({ table, count }) => ({
        id: tableText(table),
        text: `a row of ${tableText(table)}, to which ${String(count)} column${count === 1 ? '' : 's'} of other tables lead`,
      })),
      none,
    ],
    fallback: none.id,
    answer: answer === none.id ? none.id : null,
  };
}
