/** `belfry doctor`: everything that can be wrong, each with its cure. Exit 1 if any fails. */

import type { Command } from 'commander';
import type { Check } from '../doctor/doctor.js';
import { addReadingCommand, configIfAny, databaseUrl, note, print, printJson } from './common.js';
import type { ReadingOptions } from './common.js';

export function registerDoctor(program: Command): void {
  addReadingCommand(program, 'doctor', 'check everything that can be wrong, and say what to do').action(
    async (options: ReadingOptions) => {
      const config = await configIfAny(options);
      const { diagnose } = await import('../doctor/doctor.js');
      const diagnosis = await diagnose(config?.database.url ?? (await databaseUrl(options)), config);
      if (options.json) printJson(diagnosis);
      else diagnosis.checks.forEach(show);
      if (diagnosis.ok) return;
      const failed = diagnosis.checks.filter(({ level }) => level === 'fail').map(({ name }) => name);
      note(`belfry: ${String(failed.length)} of ${String(diagnosis.checks.length)} checks fail: ${failed.join(', ')}`);
      process.exitCode = 1;
    },
  );
}

function show({ name, level, detail, cure }: Check): void {
  print(`${level.padEnd(4)}  ${name}: ${detail}`);
  if (cure !== null) print(`      ${cure}`);
}
