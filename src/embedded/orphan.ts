/**
 * Processes that a start finds: a Postgres whose owner was killed is stopped, another program that happens to have the pid in
 * a stale postmaster.pid is left alone.
 */
import { execFile } from 'node:child_process';
import { chmod, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { BelfryError } from '../errors.js';

/** How long a fast shutdown of an orphan may take before it becomes an immediate one, and that before we give up. */
const stopTimeoutMs = 10_000;

export interface PidFile {
  readonly pid: number;
  /** Line 8 of postmaster.pid says so once connections are accepted (pg_ctl looks there too). */
  readonly ready: boolean;
}

export async function readPidFile(cluster: string): Promise<PidFile | null> {
  const text = await readFile(path.join(cluster, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  return Number.isInteger(pid) && pid > 0 ? { pid, ready: lines[7]?.trim() === 'ready' } : null;
}

/**
 * Stops the Postgres that still runs on this cluster; the caller knows that its owner is dead. Returns whether there was one.
 * Throws `unavailable` when it does not end.
 */
export async function stopOrphan(cluster: string): Promise<boolean> {
  const found = await readPidFile(cluster);
  if (found === null) {
    // Empty, as a crash or a full disk leaves it; with it Postgres would never start again.
    await rm(path.join(cluster, 'postmaster.pid'), { force: true });
    return false;
  }
  const ours = (await isRunning(found.pid)) && (await commandOf(found.pid)).includes(cluster);
  if (ours) await stopPostgres(found.pid, cluster);
  // Postgres asks only whether there is a process of that number, be it a dead one that is still listed or somebody else's.
  // It knows that its own parent is no postmaster, and still looks for backends that use the old one's memory, which it would
  // not if the file were gone.
  await replacePid(cluster, process.pid);
  return ours;
}

async function stopPostgres(pid: number, cluster: string): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    process.kill(pid, signal);
    const deadline = Date.now() + stopTimeoutMs;
    while (Date.now() < deadline) {
      if (!(await isRunning(pid))) return;
      await sleep(20);
    }
  }
  throw new BelfryError(
    'unavailable',
    `Postgres (process ${pid}) still runs on ${cluster} and does not stop: kill it.`,
  );
}

/** As a whole or not at all. Does nothing when the file is gone, as after a clean stop. */
async function replacePid(cluster: string, pid: number): Promise<void> {
  const file = path.join(cluster, 'postmaster.pid');
  const text = await readFile(file, 'utf8').catch(() => null);
  if (text === null) return;
  const beside = `${file}.new`;
  await writeFile(beside, [String(pid), ...text.split('\n').slice(1)].join('\n'));
  // The server may run as somebody else, and reads it before it makes its own.
  await chmod(beside, 0o644);
  await rename(beside, file);
}

export async function isRunning(pid: number): Promise<boolean> {
  return (await startOf(pid)) !== null;
}

/**
 * When a process started, in a form that only equals itself; null when there is no such process. One that has ended but was
 * not yet heard of by its parent is none: in a container whose first process does not care it stays for ever.
 */
export async function startOf(pid: number): Promise<string | null> {
  if (process.platform !== 'linux') {
    const [state = '', ...start] = ((await ps(pid, 'state=,lstart=')) ?? '').split(/\s+/);
    return state === '' || state.startsWith('Z') ? null : start.join(' ');
  }
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  if (text === null) return null;
  // proc(5): field 3 is the state, 22 the start; field 2, the name, may hold spaces and brackets.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return /^[ZX]/.test(fields[0] ?? '') ? null : (fields[19] ?? null);
}

async function commandOf(pid: number): Promise<string> {
  if (process.platform !== 'linux') return (await ps(pid, 'command=')) ?? '';
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return text.replaceAll('\0', ' ');
}

async function ps(pid: number, columns: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)('ps', ['-ww', '-o', columns, '-p', String(pid)]);
    return stdout.trim() === '' ? null : stdout.trim();
  } catch {
    return null;
  }
}
