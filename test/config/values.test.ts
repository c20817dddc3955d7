/** Durations, channels, templates, and the light look at SQL. */

import { describe, expect, it } from 'vitest';
import { parseChannel, parseDuration, replaceParameters, sqlParameters } from '../../src/config.js';
import { parseChannelTemplate, sqlProblem, TABLE_PATTERN } from '../../src/config/values.js';

describe('parseDuration', () => {
  it.each([
    ['500ms', 500],
    ['5s', 5_000],
    ['1.5m', 90_000],
    ['12h', 43_200_000],
    ['7d', 604_800_000],
  ])('%s', (text, ms) => expect(parseDuration(text)).toBe(ms));
  it.each(['', '5', 's', '5 s', '-5s', '5S', '1w', '5s5s', '.5s'])('not %j', (text) =>
    expect(parseDuration(text)).toBeNull(),
  );
});

describe('parseChannel', () => {
  it('splits at the first colon', () => {
    expect(parseChannel('post:1')).toEqual({ kind: 'post', id: '1' });
    expect(parseChannel('post:a:b')).toEqual({ kind: 'post', id: 'a:b' });
    expect(parseChannel('lobby')).toEqual({ kind: 'room', id: 'lobby' });
  });
  it.each(['', ':1', 'post:', 'a\u0000', 'x\n:1', 'x'.repeat(257)])('not %j', (text) =>
    expect(parseChannel(text)).toBeNull(),
  );
});

describe('parseChannelTemplate', () => {
  it('takes columns apart from text', () => {
    expect(parseChannelTemplate('post:{post_id}')).toEqual({
      text: 'post:{post_id}',
      kind: 'post',
      parts: ['post:', { column: 'post_id' }],
    });
    expect(parseChannelTemplate('x:{a}-{b C}!')?.parts).toEqual(['x:', { column: 'a' }, '-', { column: 'b C' }, '!']);
    expect(parseChannelTemplate('all')).toEqual({ text: 'all', kind: 'room', parts: ['all'] });
    expect(parseChannelTemplate('{room}')).toEqual({ text: '{room}', kind: 'room', parts: [{ column: 'room' }] });
  });
  it.each(['', 'post:', 'post:{', 'post:{}', 'post:}', '{a}:{b}', 'p{a}:b'])('not %j', (text) =>
    expect(parseChannelTemplate(text)).toBeNull(),
  );
});

describe('table names', () => {
  it.each(['likes', 'public.likes', 'public."Likes"', '"a""b"."c.d"', 'Ünï.tab$1'])('%s', (name) =>
    expect(name).toMatch(TABLE_PATTERN),
  );
  it.each(['', 'a b', 'a.b.c', '1a', '"a', 'a;drop', 'a.'])('not %j', (name) =>
    expect(name).not.toMatch(TABLE_PATTERN),
  );
});

describe('SQL parameters', () => {
  it('are found in code only', () => {
    const sql = `select ':a', ":b", $$ :c $$, $x$ :d $x$, E'\\':e', x::f, y[1:g], (z):h /* :i */ -- :j
      from t where k = :k and l=:l or m in (:k,:n)`;
    expect(sqlParameters(sql)).toEqual(['k', 'l', 'n']);
    expect(replaceParameters('a = :a and b = :b::text', (name) => `$${name.length}`)).toBe('a = $1 and b = $1::text');
  });
});

describe('sqlProblem', () => {
  it.each([
    `select 1 from t where a = ';' and b = $$;$$ -- ;`,
    `with x as (select 1) select * from x where u = :user`,
    `(select 1) union (select 2)`,
    `select E'it\\'s; fine'`,
  ])('has nothing against %s', (sql) => expect(sqlProblem(sql, 'query', ['user'])).toBeNull());
  it.each([
    ['', /empty/],
    ['-- nothing', /empty/],
    ['select 1; select 2', /semicolon/],
    ['select (1', /parentheses/],
    ['select 1)(', /parentheses/],
    [`select 'a`, /quote/],
    ['delete from t', /select/],
    ['select :other', /knows only :user, not :other/],
  ])('%j', (sql, problem) => expect(sqlProblem(sql, 'query', ['user'])).toMatch(problem));
  it('takes a condition without parameters', () => {
    expect(sqlProblem('deleted_at is null', 'condition', [])).toBeNull();
    expect(sqlProblem('a = :b', 'condition', [])).toBe('takes no parameters, not :b');
  });
});
