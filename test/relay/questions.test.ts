/** What is loaded before a batch is decided. */

import { expect, it } from 'vitest';
import { parseConfig } from '../../src/config.js';
import { planPage } from '../../src/relay/plan/plan.js';
import { groupQuestionsOf } from '../../src/relay/plan/questions.js';
import type { Side } from '../../src/rules/event.js';
import { worldConfig } from './world.js';

const config = parseConfig(worldConfig('postgres://localhost/x'), {}, { path: 'test.yaml' });
const rules = { sources: new Map(config.sources.map((source) => [source.name, source])), groups: () => false };

function planOf(more: Partial<Side>) {
  const key = '["1"]';
  const after: Side = {
    ...{ key, actorId: '1', objectId: '1', subjectId: '1', route: '["1"]', channels: [], include: null },
    recipients: ['7'],
    ...more,
  };
  const event = {
    id: '1',
    at: new Date(0),
    source: 'conversation_message',
    op: 'created' as const,
    before: null,
    after,
  };
  return planPage(
    [{ kind: 'source', event: { ...event, xid: '1', counts: false, countersOnly: false, keyStands: false } }],
    rules,
  );
}

it('of a row that more people have than a batch takes, only what those have who are asked about', () => {
  const row = { source: 'conversation_message', key: '["1"]' };
  expect(groupQuestionsOf(planOf({}), null)).toMatchObject({ rows: [row], shares: [] });
  const alone = planOf({ alone: true });
  expect(groupQuestionsOf(alone, null)).toMatchObject({ rows: [], shares: [{ ...row, userId: '7' }] });
  const taken = { ...alone, steps: [{ kind: 'retract' as const, ...row, onlyUser: '8' }] };
  expect(groupQuestionsOf(taken, null)).toMatchObject({ rows: [], shares: [{ ...row, userId: '8' }] });
});

it('of a dedupe_key that a whole town was given, only whether the one who is notified has it', () => {
  const row = { user_id: '7', type: 'system', message: 'Welcome', dedupe_key: 'welcome' };
  const event = { id: '1', at: new Date(0), source: 'belfry.notify', op: 'notify', row };
  const plan = planPage([{ kind: 'other', event }], rules);
  expect(groupQuestionsOf(plan, null)).toMatchObject({
    rows: [],
    shares: [{ source: 'belfry.notify', key: '["system","welcome"]', userId: '7' }],
  });
});
