// Runs `npm run demo` in a checkout as a person would: it answers, Ctrl-C ends it cleanly, after kill -9 it starts again.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const cwd = process.argv[2] ?? '.';
const startTimeoutMs = 120_000;

const first = await start();
await expectAnswer(first);
await interrupt(first);
console.log('ended cleanly by Ctrl-C');

const killed = await start();
await expectAnswer(killed);
process.kill(-killed.child.pid, 'SIGKILL');
await killed.exit;

const again = await start();
await expectAnswer(again);
await interrupt(again);
console.log('started again after kill -9');

/** Ctrl-C. npm ends by the signal itself; the demo, which is in its group, says on its way out what it does. */
async function interrupt(demo) {
  process.kill(-demo.child.pid, 'SIGINT');
  for (const deadline = Date.now() + 40_000; groupLives(demo.child.pid); await sleep(50)) {
    if (Date.now() > deadline) fail(demo, 'still runs 40 s after Ctrl-C');
  }
  const how = await demo.exit;
  if (how !== 0 && how !== 'SIGINT' && how !== 130) fail(demo, `ended with ${how} after Ctrl-C`);
}

function groupLives(pid) {
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** In a process group of its own, so that a signal reaches npm and all below it, as Ctrl-C in a terminal does. */
async function start() {
  const port = await freePort();
  const child = spawn('npm', ['run', 'demo', '--', '--port', String(port)], {
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const demo = { child, port, output: '', url: `http://localhost:${port}/` };
  demo.exit = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (demo.output += text));
  const deadline = Date.now() + startTimeoutMs;
  while (!demo.output.includes(demo.url)) {
    if (Date.now() > deadline || child.exitCode !== null) fail(demo, `${demo.url} was not printed`);
    await sleep(50);
  }
  return demo;
}

async function expectAnswer(demo) {
  const page = await fetch(demo.url);
  const text = await page.text();
  if (page.status !== 200 || !/<html/i.test(text)) fail(demo, `the page answers ${page.status}`);
  const status = await (await fetch(new URL('/api/ws/status', demo.url))).json();
  if (status.status !== 'ok') fail(demo, `the status is ${JSON.stringify(status)}`);
  console.log(`${demo.url} answers`);
}

function fail(demo, why) {
  console.error(`demo: ${why}\n${demo.output.slice(-4000)}`);
  try {
    process.kill(-demo.child.pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
  process.exit(1);
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
