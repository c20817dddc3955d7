/**
 * The report, bench/RESULTS.md: one section per bench, replaced in place when that bench runs again, so that a run of
 * one bench leaves the others' figures (each section says when and where it was measured).
 */

import { readFile, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import type { WriterTool } from './pgbench.js';
import type { Server } from './database.js';

const FILE = fileURLToPath(new URL('../../../bench/RESULTS.md', import.meta.url));

/** A limit that a bench was held against. */
export interface Verdict {
  readonly what: string;
  readonly measured: string;
  readonly limit: string;
  readonly pass: boolean;
}

export interface Section {
  readonly title: string;
  /** Markdown below the title: what was done, then the tables. */
  readonly body: string;
  /** Only asked when every variant has run. */
  readonly verdicts: () => readonly Verdict[];
}

export interface BenchContext {
  readonly server: Server;
  readonly tool: WriterTool;
  readonly rounds: number;
  /** Short slots: to see whether the bench works, not to judge. */
  readonly quick: boolean;
  /** Variants to run; null: all. */
  readonly only: readonly string[] | null;
  log(line: string): void;
}

export interface Bench {
  readonly name: string;
  run(context: BenchContext): Promise<Section>;
}

const HEAD = `# Results

Written by \`npm run bench\`; docs/benchmarks.md says how it is measured. Compare ratios, not rates: they are of things
run alternately in the same run, the median over the rounds with the smallest and the largest in brackets.
`;

/** Replaces the section of one bench. */
export async function writeSection(name: string, section: Section, context: BenchContext): Promise<void> {
  const begin = `<!-- begin ${name} -->`;
  const end = `<!-- end ${name} -->`;
  const text = [
    begin,
    '',
    `## ${section.title}`,
    '',
    measuredOn(context),
    '',
    section.body,
    '',
    limits(section.verdicts()),
    end,
  ].join('\n');
  const old = await readFile(FILE, 'utf8').catch(() => HEAD);
  const from = old.indexOf(begin);
  const to = old.indexOf(end);
  const next =
    from >= 0 && to > from ? old.slice(0, from) + text + old.slice(to + end.length) : `${old.trimEnd()}\n\n${text}\n`;
  await writeFile(FILE, await format(next, { ...(await resolveConfig(FILE)), parser: 'markdown' }));
}

/** The variants of a bench that this run wants. */
export function wanted<Variant extends string>(variants: readonly Variant[], { only }: BenchContext): Variant[] {
  return variants.filter((variant) => only === null || only.includes(variant));
}

/** A markdown table; the first column is text, the others numbers. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, column) => (column === 0 ? '---' : '--:'))), ...rows.map(line)].join('\n');
}

export function atLeast(what: string, measured: number, limit: number, digits = 2): Verdict {
  return { what, measured: measured.toFixed(digits), limit: `≥ ${limit}`, pass: measured >= limit };
}

export function atMost(what: string, measured: number, limit: number, digits = 2): Verdict {
  return { what, measured: measured.toFixed(digits), limit: `≤ ${limit}`, pass: measured <= limit };
}

function limits(verdicts: readonly Verdict[]): string {
  if (verdicts.length === 0) return '';
  const rows = verdicts.map(({ what, measured, limit, pass }) => [what, measured, limit, pass ? 'pass' : '**fail**']);
  return `${table(['Limit', 'measured', 'limit', ''], rows)}\n`;
}

function measuredOn({ server, rounds, quick }: BenchContext): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown CPU';
  const gib = Math.round(totalmem() / 2 ** 30);
  const packages = ['pg', 'uWebSockets.js', 'ws', 'socket.io', '@socket.io/postgres-adapter', 'pg-listen'].map(
    (name) => `${name} ${versionOf(name)}`,
  );
  const date = new Date().toISOString().slice(0, 16).replace('T', ' ');
  return [
    `${date} UTC, ${rounds} round${rounds === 1 ? '' : 's'}${quick ? ', **quick (not for judging)**' : ''}.`,
    `${cpus().length} CPUs (${model}), ${gib} GiB, Linux ${release()}, Node ${process.versions.node}, PostgreSQL ${server.version}`,
    `(fsync and synchronous_commit on, shared_buffers 1 GB), ${packages.join(', ')}.`,
  ].join('\n');
}

function versionOf(name: string): string {
  try {
    const require = createRequire(import.meta.url);
    const path = require.resolve.paths(name)?.map((folder) => `${folder}/${name}/package.json`) ?? [];
    for (const file of path) {
      try {
        return (require(file) as { version: string }).version;
      } catch {
        // the next folder up
      }
    }
    return 'unknown';
  } catch {
    return 'unknown';
  }
}
