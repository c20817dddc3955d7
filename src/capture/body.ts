/**
 * The source text of the trigger functions: when they write, what guards them, and when they ring.
 *
 * What a transaction has captured is kept in its setting belfry.captures, which rolls back with savepoints as locks and
 * notifications do: one dot for each guarded capture (at most `GUARD_BOUND`), or, longer than that, a sentence on the failure.
 *
 * The first path is what nearly every transaction takes, and is kept short: Postgres prepares every expression of a function anew in each
 * transaction, which costs more than evaluating it.
 */

import { quoteLiteral } from '../postgres/sql.js';
import { conditionCheck, insertStatement, withCondition, type RowsInput } from './rows.js';

/** The advisory lock that a sleeping relay holds: 'belfry' in ASCII. */
export const DOORBELL_KEY = '108187749872249';

/**
 * Guarded captures of one transaction. Each is a subtransaction, which every visibility check of everybody looks through while the transaction is
 * open: with 4 of 200 statements open, a hot table beside them lost 8 to 12 % with 32 guards, 2 to 5 % with 8 (bench `statements`).
 */
export const GUARD_BOUND = 8;

/** How long a guarded capture may wait for a lock, and then its entry in belfry.lost: together below the 300 ms of the contract. */
export const CAPTURE_LOCK_TIMEOUT = '200ms';
const LOST_LOCK_TIMEOUT = '50ms';

/** In belfry.lost for a truncate of one partition: which rows it held can't be told, so the source has to be counted anew. */
const PARTITION_TRUNCATED = '0A000';

export interface BodyInput extends RowsInput {
  readonly onError: 'available' | 'strict';
  /** Whether the first capture of a transaction rings. */
  readonly rings: boolean;
}

/** Everything between the dollar quotes of the function. */
export function functionBody(input: BodyInput): string {
  return withCondition(input.onError === 'strict' ? strictBody(input) : availableBody(input), input.when);
}

const CAPTURES = "pg_catalog.current_setting('belfry.captures', true)";
const CAPTURE = "pg_catalog.current_setting('belfry.capture', true)";
const LOCK = `pg_catalog.pg_try_advisory_xact_lock_shared(${DOORBELL_KEY})`;

/** Nothing captured yet, nothing switched. Few functions: each costs a look at its rights, in every transaction. */
const FIRST_AND_PLAIN = `(${CAPTURES} <> '') is not true and (${CAPTURE} <> '') is not true`;

function availableBody(input: BodyInput): string {
  const source = quoteLiteral(input.source);
  const mark = quoteLiteral(`/${input.source}/`);
  const check = conditionCheck(input);
  const bare = `${insertStatement(input, true)}\nreturn null;`;
  return lines(
    `
#variable_conflict use_column
declare
  belfry_error text;
  belfry_state text;
  belfry_count integer;
begin`,
    indent(partitionTruncated(input), 2),
    `  if ${FIRST_AND_PLAIN} then
    begin`,
    indent(insertStatement(input, false), 6),
    indent(countAndRing(input, "'.'", null), 6),
    `      return null;
    exception when others then
      belfry_error := sqlstate;
    end;
  elsif ${CAPTURE} = 'off' then
    return null;
  end if;

  belfry_state := coalesce(${CAPTURES}, '');
  belfry_count := pg_catalog.length(belfry_state);
  if belfry_error is not null then
    null;
  elsif belfry_count < ${GUARD_BOUND} then
    begin`,
    indent(insertStatement(input, true), 6),
    indent(countAndRing(input, "belfry_state || '.'", 'belfry_count = 0'), 6),
    `      return null;
    exception when others then
      belfry_error := sqlstate;
    end;
  elsif pg_catalog.left(belfry_state, 1) = '.' then
    -- Enough subtransactions: bare from here on. (More dots: counted by an earlier version, which guarded more.)`,
    indent(check, 4),
    indent(check === '' ? bare : `if belfry_error is null then\n${indent(bare, 2)}\nend if;`, 4),
    `  else
    -- An earlier capture of this transaction failed: once per source, say that its events are lost.
    if pg_catalog.strpos(belfry_state, ${mark}) > 0 or pg_catalog.strpos(belfry_state, 'nothing is recorded') > 0 then
      return null;
    end if;
    belfry_error := pg_catalog.substr(belfry_state, 8, 5);
  end if;

  begin
    perform pg_catalog.set_config('lock_timeout', '${LOST_LOCK_TIMEOUT}', true);
    insert into belfry.lost (source, sqlstate) values (${source}, belfry_error);
    if belfry_count <= ${GUARD_BOUND} then
      belfry_state := 'failed ' || belfry_error || '; recorded in belfry.lost: ';
    end if;
    perform pg_catalog.set_config('belfry.captures', belfry_state || ${mark}, true);
  exception when others then
    perform pg_catalog.set_config('belfry.captures', 'failed ' || belfry_error || '; belfry.lost too: nothing is recorded', true);
  end;`,
    // A relay that sleeps is to repair what was lost now, not when it looks by itself.
    input.rings ? indent(guardedRing, 2) : null,
    `  return null;
end
`,
  );
}

/** Whatever fails in it, what was written before stays. */
const guardedRing = `
begin
  if not ${LOCK} then
    perform belfry.ring();
  end if;
exception when others then
  null;
end;`;

/**
 * Counts the capture and, the first time, rings if the relay sleeps: one expression, evaluated in the order of `case`. belfry.ring() has
 * an exception block of its own, so that a bell that fails does not undo the event. The lock, which is tried here in every transaction
 * because a call costs more, fails only when the server is out of memory for locks; then the event is recorded as lost.
 */
function countAndRing(input: BodyInput, state: string, first: string | null): string {
  const count = `pg_catalog.set_config('belfry.captures', ${state}, true)`;
  if (!input.rings) return `if found then\n  perform ${count}; -- wakeup: poll. Nobody rings.\nend if;`;
  const sleeps = first === null ? `not ${LOCK}` : `${first} and not ${LOCK}`;
  return `
if (case when not found then false when ${count} is null then false else ${sleeps} end) then
  perform belfry.ring();
end if;`;
}

/** Nothing is guarded but the bell. It rings also after a failed capture of another source, when nobody can know whether one rang. */
function strictBody(input: BodyInput): string {
  const count = "pg_catalog.set_config('belfry.captures', '.', true)";
  const first = `case when not found then false when belfry_state = '' then ${count} is not null else pg_catalog.length(belfry_state) > ${GUARD_BOUND} end`;
  return lines(
    `
#variable_conflict use_column
declare
  belfry_state text := coalesce(${CAPTURES}, '');
begin
  if ${CAPTURE} = 'off' then
    return null;
  end if;`,
    indent(partitionTruncated(input), 2),
    indent(insertStatement(input, true), 2),
    `  if (${first}) then`,
    indent(input.rings ? guardedRing : 'null; -- wakeup: poll. Nobody rings.', 4),
    `  end if;
  return null;
end
`,
  );
}

/** Joins what is there; what indent makes of nothing is left out. */
function lines(...parts: readonly (string | null)[]): string {
  return parts.filter((part) => part !== null).join('\n');
}

/**
 * A truncate of one partition is no truncate of the source, and its rows are not given to triggers: to be repaired like a lost
 * event. A truncate of the parent fires the partitions' triggers too, after its own and in the same statement: these keep silent.
 */
function partitionTruncated(input: BodyInput): string {
  if (input.operation !== 'truncate') return '';
  const off = `if ${CAPTURE} = 'off' then\n  return null;\nend if;`;
  const mark = `${quoteLiteral(`/${input.source}/`)} || pg_catalog.statement_timestamp()`;
  const record = `insert into belfry.lost (source, sqlstate) values (${quoteLiteral(input.source)}, '${PARTITION_TRUNCATED}');`;
  return `${off}
if tg_nargs > 0 then
  if pg_catalog.strpos(coalesce(pg_catalog.current_setting('belfry.truncated', true), ''), ${mark}) = 0 then
${indent(input.onError === 'strict' ? record : `begin\n  ${record}\nexception when others then\n  null;\nend;`, 4)}${input.rings ? `\n${indent(guardedRing, 4) ?? ''}` : ''}
  end if;
  return null;
end if;
perform pg_catalog.set_config('belfry.truncated',
  coalesce(pg_catalog.current_setting('belfry.truncated', true), '') || ${mark}, true);`;
}

/** Null for nothing. */
function indent(text: string, by: number): string | null {
  if (text === '') return null;
  const space = ' '.repeat(by);
  return text
    .replace(/^\n/, '')
    .split('\n')
    .map((line) => (line === '' ? line : space + line))
    .join('\n');
}
