/**
 * Who uses a data directory: owner.json names the process by its pid and the time it started, so that a pid that was given to
 * another process does not count. What a killed owner left is taken over; a living one is told of.
 *
 * The claim is made by a hard link, which either makes the file whole or fails. A dead owner's file is first renamed away; a
 * taker that finds it has moved the file of another, living taker puts it back. Postgres's own lock file is the second net.
 */
import { randomBytes } from 'node:crypto';
import { link, readFile, rename, rm, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BelfryError } from '../errors.js';
import { startOf } from './orphan.js';

export interface Claim {
  release(): Promise<void>;
}

interface Owner {
  readonly pid: number;
  /** As `startOf` gives it. */
  readonly start: string | null;
}

/** A process that was just killed needs a moment to be gone. */
const patienceMs = 2_000;

/** Throws `unavailable` when a living process uses the directory. */
export async function claim(dataDir: string): Promise<Claim> {
  const file = path.join(dataDir, 'owner.json');
  const mine = path.join(dataDir, `owner-${process.pid}-${randomBytes(4).toString('hex')}.json`);
  const owner: Owner = { pid: process.pid, start: await startOf(process.pid) };
  const text = JSON.stringify(owner);
  await writeFile(mine, text, { mode: 0o644 });
  try {
    for (const deadline = Date.now() + patienceMs; ; await sleep(50)) {
      if (await succeeds(link(mine, file))) return { release: () => rm(file, { force: true }) };
      const found = await readOwner(file);
      if (found === 'gone' || !(await lives(found))) await removeDead(file, `${mine}.dead`);
      else if (Date.now() > deadline) throw inUse(dataDir, found);
      if (Date.now() > deadline + patienceMs) {
        throw new BelfryError(
          'unavailable',
          `${file} can't be written: delete it, or choose another folder for the data.`,
        );
      }
    }
  } finally {
    await unlink(mine).catch(() => undefined);
  }
}

function inUse(dataDir: string, { pid }: Owner): BelfryError {
  return new BelfryError(
    'unavailable',
    `${dataDir} is in use by process ${pid}: stop it, or choose another folder for the data.`,
  );
}

async function removeDead(file: string, aside: string): Promise<void> {
  if (!(await succeeds(rename(file, aside)))) return;
  const moved = await readOwner(aside);
  if (moved !== 'gone' && (await lives(moved))) await succeeds(link(aside, file));
  await rm(aside, { force: true });
}

async function readOwner(file: string): Promise<Owner | 'gone'> {
  const text = await readFile(file, 'utf8').catch(() => null);
  if (text === null) return 'gone';
  try {
    const owner = JSON.parse(text) as Partial<Owner> | null;
    return { pid: owner?.pid ?? 0, start: owner?.start ?? null };
  } catch {
    return { pid: 0, start: null };
  }
}

/** A file that can't be read (pid 0) has no living owner. */
async function lives(owner: Owner): Promise<boolean> {
  if (owner.pid === 0) return false;
  const start = await startOf(owner.pid);
  return start !== null && (owner.start === null || owner.start === start);
}

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}
