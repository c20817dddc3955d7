/** The client with Node's own WebSocket, in a process without any package: behind an option in Node 20, there since 22. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import { startScript } from '../support/program.js';
import { addComment, addPost, addUsers } from '../support/social.js';
import { startRunning, token, until, type Running } from './running.js';

let running: Running;
beforeAll(async () => {
  running = await startRunning();
});
afterAll(() => running?.stop());

it("resumes over cuts with Node's own WebSocket, and lets the process end when it is closed", async () => {
  const [ada = '', bo = ''] = await addUsers(running.database.pool, 'Ada', 'Bo');
  const post = await addPost(running.database.pool, ada);
  const source = `
    import { connect } from './dist-test/client/index.js';
    const client = connect({ url: '${running.url}', token: () => '${token(ada)}' });
    const told = [];
    client.on('status', ({ status }) => console.log(status));
    client.on('gap', (gap) => console.log('gap', gap));
    client.on('notification', (_, { seq }) => {
      told.push(seq);
      if (seq === 12) {
        console.log('own', told.join());
        client.close();
      }
    });`;
  const program = startScript(source, { env: { NODE_OPTIONS: '--experimental-websocket' } });
  try {
    await program.waitFor(/online/);
    for (let i = 1; i <= 12; i++) {
      await addComment(running.database.pool, post, bo, `c${i}`);
      if (i % 4 === 0 && i < 12) {
        await until('it is connected', () => running.proxy.connections > 0);
        running.proxy.reset();
      }
    }
    expect((await program.exit).code).toBe(0);
    expect(program.stdout).toContain('own 1,2,3,4,5,6,7,8,9,10,11,12\n');
    expect(program.stdout).toMatch(/waiting[\s\S]*closed\n$/);
    expect(program.stdout).not.toContain('gap');
  } finally {
    await program.kill();
  }
}, 180_000);
