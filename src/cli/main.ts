#!/usr/bin/env node
/**
 * `belfry`: runs one command and ends with the exit code of the contract: 0 done, 1 it failed (one line on stderr), 2 wrong
 * usage or config.
 */

import { commandFirst, createProgram } from './program.js';
import { exitCodeOf, tell } from './report.js';

// Whoever reads us may stop reading, as in `belfry outbox list | head`. What is being done is done all the same: `belfry migrate | head`
// must not end half-way, and say that all is well.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.exit(1);
});

try {
  const args = commandFirst(process.argv.slice(2));
  const program = await createProgram(args);
  await program.parseAsync(args, { from: 'user' });
} catch (error) {
  tell(error);
  process.exitCode = exitCodeOf(error);
}
