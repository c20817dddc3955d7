/** What the doctor makes of what it reads: one condition at a time turns one check. Servers of which there is none here come as their rows. */
import { describe, expect, it } from 'vitest';
import type { Check } from '../../src/doctor/check.js';
import { judgeCertificate } from '../../src/doctor/besides.js';
import { judgeRights } from '../../src/doctor/rights.js';
import type { RightsRow } from '../../src/doctor/rights.js';
import { judgeClock, judgeServer } from '../../src/doctor/server.js';
import type { ServerRow } from '../../src/doctor/server.js';
import { judgeState } from '../../src/doctor/state.js';
import type { StateRow } from '../../src/doctor/state.js';
import { captureConfig, source } from '../capture/support.js';

const notifying = captureConfig(source('a', 'public.a'));
const polling = captureConfig(source('a', 'public.a'), '', '{ url: postgres://unused, wakeup: poll }');

const unsound = (checks: readonly Check[]): string[] =>
  checks.filter(({ level }) => level !== 'ok').map(({ name, level }) => `${name} ${level}`);

describe('the server', () => {
  const sound: ServerRow = {
    version: 140_000,
    version_text: '14.0',
    standby: false,
    encoding: 'UTF8',
    max_connections: 97,
    clients: 77,
    belfry: 0,
    queue: 0.09,
    prepared: 0,
    user: 'app',
    superuser: false,
    replica_role: false,
  };

  it('is sound', () => expect(unsound(judgeServer(sound, notifying))).toEqual([]));

  it.each<[string, Partial<ServerRow>, string[]]>([
    ['too old', { version: 139_999 }, ['version fail']],
    ['a standby', { standby: true }, ['primary fail']],
    ['another encoding', { encoding: 'LATIN1' }, ['encoding warn']],
    ['triggers that do not fire', { replica_role: true }, ['replication_role warn']],
    ['too few connections left', { clients: 78 }, ['connections warn']],
    ['the same, which Belfry has already', { clients: 78, belfry: 1 }, []],
    ['hardly any', { clients: 94 }, ['connections fail']],
    ['a queue that fills', { queue: 0.1 }, ['notify_queue warn']],
    ['one into which nobody rings', { queue: 0.5 }, ['notify_queue fail']],
    ['two-phase commit', { prepared: 10 }, ['wakeup warn']],
  ])('%s', (_, change, expected) => {
    expect(unsound(judgeServer({ ...sound, ...change }, notifying))).toEqual(expected);
  });

  it('that nobody rings for: a full queue is the warning of others, two-phase commit none', () => {
    expect(unsound(judgeServer({ ...sound, queue: 0.9, prepared: 10 }, polling))).toEqual(['notify_queue warn']);
  });
});

describe('a certificate', () => {
  const now = new Date('2026-01-15T12:00:00Z');
  it.each([
    ['2026-01-30T12:00:00Z', 'ok'],
    ['2026-01-29T11:59:00Z', 'warn'],
    ['2026-01-15T11:59:00Z', 'fail'],
  ])('that ends %s: %s', (ends, level) => {
    expect(judgeCertificate(new Date(ends), now)).toMatchObject({ name: 'tls', level });
  });
});

describe('the clock', () => {
  it.each([
    [1.9, 0, 'ok'],
    [-1.9, 0, 'ok'],
    [2.1, 0, 'warn'],
    [-2.1, 0, 'warn'],
    [2.1, 1000, 'ok'],
    [59, 0, 'warn'],
    [61, 0, 'fail'],
    [-61, 0, 'fail'],
  ])('%f s at a trip of %i ms: %s', (skew, trip, level) => expect(judgeClock(skew, trip).level).toBe(level));

  it('says which way', () => {
    expect(judgeClock(10, 0).detail).toContain('behind');
    expect(judgeClock(-10, 0).detail).toContain('ahead of');
  });
});

describe('the state', () => {
  const sound: StateRow = {
    leader: 'one',
    paused: false,
    events: 5,
    seconds: 30,
    dead: 0,
    dead_sources: null,
    lost: 0,
    lost_sources: null,
    lost_s: null,
    in_default: false,
  };

  it('is sound', () => expect(unsound(judgeState(sound))).toEqual([]));

  it.each<[string, Partial<StateRow>, string[]]>([
    ['paused', { paused: true }, ['relay warn']],
    ['nobody leads', { leader: null }, ['relay warn']],
    ['behind', { seconds: 31 }, ['relay warn']],
    ['nothing to be behind of', { events: 0, seconds: 31 }, []],
    ['a dead letter', { dead: 1, dead_sources: ['a'] }, ['dead_letters fail']],
    ['a loss just now', { lost: 1, lost_sources: ['a'], lost_s: 120 }, ['lost_events warn']],
    ['a loss that stays', { lost: 1, lost_sources: ['a'], lost_s: 121 }, ['lost_events fail']],
  ])('%s', (_, change, expected) => {
    expect(unsound(judgeState({ ...sound, ...change }))).toEqual(expected);
  });

  it('a loss is cured by the relay that runs, or by one', () => {
    const cure = (leader: string | null) =>
      judgeState({ ...sound, leader, lost: 1, lost_s: 1 }).find(({ name }) => name === 'lost_events')?.cure;
    expect(cure(null)).toContain('belfry start');
    expect(cure('one')).toContain('SQLSTATE');
  });
});

describe('rights', () => {
  const sound: RightsRow = {
    user: 'app',
    may_create: true,
    owns_schema: true,
    relay: false,
    roles: true,
    unreadable: null,
    foreign: null,
  };

  it('of a relay are less: somebody else migrates', () => {
    const relay: RightsRow = {
      ...sound,
      relay: true,
      owns_schema: false,
      may_create: false,
      foreign: ['a.b (owner c)'],
    };
    expect(judgeRights(relay)).toMatchObject({ level: 'ok' });
    expect(judgeRights({ ...relay, unreadable: ['a.b'] })).toMatchObject({
      level: 'fail',
      detail: 'app may not read a.b',
    });
    expect(judgeRights({ ...relay, relay: false })).toMatchObject({ level: 'fail' });
  });

  it('are enough', () => expect(judgeRights(sound).level).toBe('ok'));

  it.each<[Partial<RightsRow>, string]>([
    [{ may_create: false }, 'app may not create a schema in this database'],
    [{ owns_schema: false }, 'app is not a member of the role that owns schema belfry'],
    [{ unreadable: ['a.b'] }, 'app may not read a.b'],
    [{ foreign: ['a.b (owner c)'] }, 'app may not create triggers on a.b (owner c)'],
    [{ roles: false }, 'app may not create the roles belfry_capture and belfry_app, which are not there'],
  ])('%o', (change, detail) => {
    expect(judgeRights({ ...sound, ...change })).toMatchObject({ level: 'fail', detail });
  });
});
