/** What the Dockerfile says that can be tried without Docker. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { RequestListener } from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { projectRoot } from '../support/build.js';
import { freePort } from '../support/ports.js';

/** The exit code of HEALTHCHECK where PORT is this. */
async function healthOf(port: number): Promise<unknown> {
  const text = readFileSync(path.join(projectRoot, 'Dockerfile'), 'utf8');
  const [program = '', ...args] = JSON.parse(/^HEALTHCHECK .*\\\n +CMD (\[.*\])$/m.exec(text)?.[1] ?? '[]') as string[];
  const check = spawn(program, args, { env: { ...process.env, PORT: String(port) }, stdio: 'ignore' });
  const [code] = (await once(check, 'exit')) as unknown[];
  return code;
}

async function serve(tls: boolean, status: number): Promise<number> {
  const answer: RequestListener = ({ url }, response) => {
    response.statusCode = url === '/healthz' ? status : 404;
    response.end();
  };
  const file = (name: string): Buffer => readFileSync(path.join(projectRoot, 'test/support/tls', name));
  const server = tls
    ? https.createServer({ cert: file('cert.pem'), key: file('key.pem') }, answer)
    : http.createServer(answer);
  const port = await freePort();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return port;
}

it('the health check is content with HTTP, with TLS whoever signed it, and with a relay one port higher', async () => {
  const [plain, tls] = [await serve(false, 200), await serve(true, 200)];
  expect(await Promise.all([plain, tls, plain - 1].map(healthOf))).toEqual([0, 0, 0]);
});

it('the health check fails where nobody listens, or says that all is not well', async () => {
  expect(await Promise.all([await freePort(), await serve(false, 503)].map(healthOf))).toEqual([1, 1]);
});
