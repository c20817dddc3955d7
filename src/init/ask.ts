/** Questions to somebody at a terminal. Whatever stops it throws, and nothing has been written by then. */

import { createInterface } from 'node:readline/promises';
import { BelfryError } from '../errors.js';
import type { Draft, Question } from './draft.js';

export interface Terminal {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
}

/**
 * Asks one after the other, since an answer may open or settle others; resolves with all answers, those given before included. A
 * question without choices stands in the file only. Throws BelfryError `unavailable` when the person stops.
 */
export async function askAll(
  terminal: Terminal,
  draftFor: (answers: ReadonlyMap<string, string>) => Draft,
  given: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, string>> {
  const answers = new Map(given);
  const left = new Set<string>();
  const lines = createInterface({ ...terminal, terminal: false });
  const stopped = new AbortController();
  lines.once('close', () => stopped.abort());
  try {
    for (;;) {
      const question = draftFor(answers).questions.find(
        ({ id, choices }) => choices.length > 0 && !answers.has(id) && !left.has(id),
      );
      if (question === undefined) return answers;
      const answer = await askOne(lines, terminal.output, question, stopped.signal);
      if (answer === null) left.add(question.id);
      else answers.set(question.id, answer);
    }
  } catch (error) {
    if (stopped.signal.aborted) throw new BelfryError('unavailable', 'Stopped: nothing was written.', { cause: error });
    throw error;
  } finally {
    lines.close();
  }
}

/** Null when it was left as it is. */
async function askOne(
  lines: ReturnType<typeof createInterface>,
  output: NodeJS.WritableStream,
  question: Question,
  signal: AbortSignal,
): Promise<string | null> {
  const { text, choices, fallback } = question;
  const list = choices.map(
    ({ id, text: choice }, i) => `  ${String(i + 1)}  ${choice}${id === fallback ? ' (if you just press Enter)' : ''}`,
  );
  output.write(
    `\n${text}\n${list.join('\n')}\n${fallback === null ? '  Enter leaves it open: it stands in the file as a question\n' : ''}`,
  );
  for (;;) {
    const line = (await lines.question('> ', { signal })).trim();
    if (line === '') return fallback;
    const chosen = choices.find(({ id }, i) => line === String(i + 1) || line === id);
    if (chosen !== undefined) return chosen.id;
    output.write(`A number from 1 to ${String(choices.length)}, or nothing.\n`);
  }
}
