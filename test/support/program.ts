/** Processes of Belfry's code that a test may kill, stop or talk to. They run what build.ts made of the sources. */
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { projectRoot, testBuild } from './build.js';

export interface Program {
  readonly child: ChildProcess;
  readonly pid: number;
  /** All that it wrote so far. */
  readonly stdout: string;
  readonly stderr: string;
  /** Resolves when stdout (or stderr) matches; rejects when the process ends without, or after 60 s. */
  waitFor(pattern: RegExp): Promise<RegExpExecArray>;
  readonly exit: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** SIGKILL, and waits for the end; for afterEach. */
  kill(): Promise<void>;
}

export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** As somebody else; only root can. */
  readonly account?: { readonly uid: number; readonly gid: number };
}

/** An ES module given as text, run in the project's root; `src/x/y.ts` is imported as './dist-test/x/y.js'. */
export function startScript(source: string, options: ProgramOptions = {}): Program {
  return start(['--input-type=module', '--eval', source], { cwd: projectRoot, ...options });
}

/** `belfry <args>`. */
export function startBelfry(args: readonly string[], options: ProgramOptions = {}): Program {
  return start([path.join(testBuild, 'cli', 'main.js'), ...args], options);
}

const waitTimeoutMs = 60_000;

function start(args: readonly string[], options: ProgramOptions): Program {
  const child = spawn(process.execPath, args, {
    cwd: options.cwd ?? projectRoot,
    ...options.account,
    // Nothing of the environment of the tests but what a program needs to run: no DATABASE_URL of the person who tests.
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const written = { stdout: '', stderr: '' };
  const watchers = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      written[name] += text;
      for (const watcher of watchers) watcher();
    });
  }
  let over = false;
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      over = true;
      resolve({ code, signal });
      for (const watcher of watchers) watcher();
    });
  });
  if (child.pid === undefined) throw new Error(`${process.execPath} can't be started`);
  return {
    child,
    pid: child.pid,
    get stdout() {
      return written.stdout;
    },
    get stderr() {
      return written.stderr;
    },
    exit,
    waitFor: (pattern) =>
      new Promise((resolve, reject) => {
        const done = (work: () => void) => {
          clearTimeout(timer);
          watchers.delete(check);
          work();
        };
        const fail = (why: string) =>
          done(() => reject(new Error(`${why} before ${String(pattern)}\n${written.stdout}\n${written.stderr}`)));
        const check = () => {
          const match = pattern.exec(written.stdout) ?? pattern.exec(written.stderr);
          if (match !== null) done(() => resolve(match));
          else if (over) fail('the process ended');
        };
        const timer = setTimeout(() => fail(`${waitTimeoutMs / 1000} s passed`), waitTimeoutMs);
        watchers.add(check);
        check();
      }),
    async kill() {
      if (!over) child.kill('SIGKILL');
      await exit;
    },
  };
}
