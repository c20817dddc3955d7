/** The log: one line of JSON per entry on stdout, without secrets. */

import { expect, it } from 'vitest';
import { startScript } from './support/program.js';

it('writes a line of JSON per entry, in order to the last, above its level, and hides secrets', async () => {
  const script = `
    import { createLogger } from './dist-test/log.js';
    const log = createLogger({ level: 'info', name: 'test' });
    log.debug('not this');
    log.info({ token: 'hunter2', auth: { secret: 'hunter2' }, count: 3 }, 'two\\nlines');
    log.warn(new Error('it broke'));
    process.exit(0);`;
  // Written in the background, the last two changed places in a third of the runs.
  const programs = Array.from({ length: 10 }, () => startScript(script));
  await Promise.all(programs.map(async (program) => program.exit));
  for (const { stdout } of programs) {
    expect(stdout).not.toContain('hunter2');
    const lines = stdout.trim().split('\n');
    const entries = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(entries).toHaveLength(2);
    expect(entries[0]).toMatchObject({ level: 'info', name: 'test', msg: 'two\nlines', count: 3, token: '[hidden]' });
    expect(entries[0]?.['time']).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect(entries[1]).toMatchObject({ level: 'warn', msg: 'it broke' });
  }
});
