/** Handshakes that take for ever: half a request, a body byte by byte, nothing at all. Each is cut off, others are served. */

import net from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startRig, type Rig } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

it.each([
  ['nothing', ''],
  ['half a handshake', 'GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n'],
  ['half a body', 'POST /api/notifications/seen HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{'],
])('%s is cut off within 20 s, drop by drop or not', { timeout: 60_000 }, async (_what, text) => {
  const lifeOf = (drop: string): Promise<number> =>
    new Promise((resolve) => {
      const began = performance.now();
      const socket = net.connect(rig.port, '127.0.0.1', () => socket.write(text));
      const timer = setInterval(() => drop !== '' && socket.write(drop), 500);
      socket.on('error', () => undefined).resume();
      socket.on('close', () => {
        clearInterval(timer);
        resolve(performance.now() - began);
      });
    });
  const lives = [lifeOf(''), ...(text === '' ? [] : [lifeOf('x')])];
  const client = await rig.login('1');
  expect((await client.request({ op: 'ping' })).ok).toEqual({});
  for (const life of lives) expect(await life).toBeLessThan(20_000);
});
