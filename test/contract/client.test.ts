/** CONTRACT §6: `belfry/client` in a plain program of this Node, given no more than an address and tokens. */

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startScript } from '../support/program.js';
import { startRig, token, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

it('connects, hears, marks and closes', async () => {
  const [author, ada] = [await rig.user('Grace'), await rig.user('Ada')];
  const post = await rig.post(author);
  const manifest = JSON.parse(await readFile('package.json', 'utf8')) as {
    exports: Record<string, Record<string, string>>;
  };
  // What Node takes for `belfry/client`, in the build of the tests.
  const entry = manifest.exports['./client']?.['node']?.replace('./dist/', './dist-test/') ?? '';
  const program = startScript(`
    import { connect } from '${entry}';
    const client = connect({ url: '${rig.ws}', token: () => '${token(author)}' });
    client.on('status', ({ status }) => console.log('status', status));
    client.on('badge', ({ unseen }) => console.log('badge', unseen));
    client.subscribe('post:${post}', ({ event, data }) => console.log(event, data.likes_count)).ready.then(() => console.log('ready'));
    client.on('notification', async ({ id, message }) => {
      console.log(message);
      console.log('marked', await client.read([id]));
      client.close();
    });`);
  try {
    await program.waitFor(/ready/);
    await rig.db.query('insert into public.likes values ($1, $2)', [ada, post]);
    expect((await program.exit).code).toBe(0);
    expect(program.stdout).toContain('Ada liked your post\n');
    expect(program.stdout).toMatch(/marked \{ seq: 2, unseen: 0, unread: 0 \}/);
    expect(program.stdout).toMatch(/status closed\n$/);
    expect(program.stderr).toBe('');
  } finally {
    await program.kill();
  }
});
