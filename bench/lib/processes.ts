/**
 * Child processes of a bench: started here, spoken to over IPC, ended here by their own pid.
 *
 * Nothing may be left running: whatever ends this process ends its children first.
 */

import { fork, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';

const STOP_LIMIT_MS = 35_000;
const CLOCK_TICKS_PER_SECOND = 100; // getconf CLK_TCK, 100 on every Linux

const running = new Set<ChildProcess>();

process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

export interface Child {
  readonly pid: number;
  /** What it wrote to stdout and stderr, the last 64 kB. */
  output(): string;
  /** SIGTERM, then SIGKILL when it does not end; idempotent. */
  stop(): Promise<void>;
  /** Throws when it has ended by itself. */
  assertAlive(): void;
}

/** A child that answers requests: one request at a time, one answer each. */
export interface Worker<Request, Answer> extends Child {
  ask(request: Request): Promise<Answer>;
}

/** Starts any program. */
export function start(command: string, args: readonly string[], env: Record<string, string> = {}): Child {
  return supervise(
    spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] }),
    command,
  );
}

/** Runs a program to its end and returns what it wrote; throws on an exit code other than 0. */
export async function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  running.delete(child);
  if (code !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${code}: ${(stderr || stdout).slice(-2000)}`);
  return stdout;
}

/** Starts a module of this folder (a URL relative to the caller's) as a process that answers over IPC. */
export function startWorker<Request, Answer>(
  module: URL,
  config: unknown,
  execArgv: readonly string[] = [],
): Worker<Request, Answer> {
  const child = fork(fileURLToPath(module), [JSON.stringify(config)], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'advanced',
    execArgv: [...execArgv],
  });
  const supervised = supervise(child, fileURLToPath(module));
  return {
    ...supervised,
    ask: (request) =>
      new Promise((resolve, reject) => {
        const done = (): void => {
          child.off('message', onMessage);
          child.off('exit', onExit);
        };
        const onMessage = (message: unknown): void => {
          done();
          if (isFailure(message)) reject(new Error(`${fileURLToPath(module)}: ${message.failed}`));
          else resolve(message as Answer);
        };
        const onExit = (): void => {
          done();
          reject(new Error(`${fileURLToPath(module)} ended: ${supervised.output()}`));
        };
        child.on('message', onMessage);
        child.on('exit', onExit);
        child.send(request as object);
      }),
  };
}

/** The other end of `startWorker`: the config it was given, and answers for what is asked. */
export function workerConfig<Config>(): Config {
  const text = process.argv[2];
  if (text === undefined) throw new Error('this module is started by a bench, not by hand');
  return JSON.parse(text) as Config;
}

export function serveWorker<Request, Answer>(answer: (request: Request) => Promise<Answer>): void {
  process.on('message', (request) => {
    answer(request as Request).then(
      (result) => process.send?.(result),
      (error: unknown) =>
        process.send?.({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}

/** User and system CPU seconds of a process so far. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

/** Resident memory of a process in MiB. */
export function residentMiB(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN) / 1024;
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks every `everyMs` until the answer is true; throws with `what` after `limitMs`. */
export async function until(
  what: string,
  limitMs: number,
  everyMs: number,
  ask: () => Promise<boolean>,
): Promise<void> {
  const limit = performance.now() + limitMs;
  while (!(await ask())) {
    if (performance.now() > limit) throw new Error(`${what}: not within ${limitMs / 1000} s`);
    await sleep(everyMs);
  }
}

function supervise(child: ChildProcess, name: string): Child {
  running.add(child);
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-65_536);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const ended = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      output += String(error);
      resolve();
    });
    child.once('exit', () => resolve());
  }).then(() => void running.delete(child));
  return {
    pid: child.pid ?? -1,
    output: () => output,
    assertAlive() {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`${name} ended by itself: ${output.slice(-2000)}`);
    },
    async stop() {
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
      await ended;
      clearTimeout(force);
    },
  };
}

function isFailure(message: unknown): message is { failed: string } {
  return typeof message === 'object' && message !== null && 'failed' in message;
}
