/** Everybody who is connected is counted again by itself, within a minute or so. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { addUsers } from '../support/social.js';
import { startRig } from './support.js';
import type { Rig } from './support.js';

let rig: Rig;

beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

it('a badge falls when an account is suspended, of which no event tells', { timeout: 180_000 }, async () => {
  const [actor = ''] = await addUsers(rig.db.pool, 'Suspended');
  await rig.db.pool.query(
    `insert into belfry.notification (user_id, seq, type, group_key, open, actors, actor_count, event_count, first_at, last_at)
     values ('1', 1, 'follow', 'by', false, array[$1], 1, 1, now(), now())`,
    [actor],
  );
  const client = await rig.login('1');
  await rig.db.pool.query('update users set deleted_at = now() where id = $1', [actor]);
  const pings = setInterval(() => client.socket.send('{"id":1,"op":"ping"}'), 10_000);
  try {
    await expect
      .poll(() => client.all.findLast((frame) => frame['event'] === 'badge')?.data, { timeout: 150_000, interval: 500 })
      .toEqual({ unseen: 0, unread: 0 });
  } finally {
    clearInterval(pings);
  }
});
