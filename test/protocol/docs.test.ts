/** docs/protocol.md says what the code does: its tables against the closed tables of codes, events and bounds. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeAction, closeCodes, errorCodes } from '../../src/protocol/codes.js';
import { RESERVED_EVENTS } from '../../src/protocol/frames.js';
import { bounds } from '../../src/protocol/parse.js';

const text = readFileSync(new URL('../../docs/protocol.md', import.meta.url), 'utf8');

/** The rows of the table under a heading, as lists of cells without backticks. */
function table(heading: string): string[][] {
  const section = text.split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

describe('docs/protocol.md', () => {
  it('lists every close code with its action', () => {
    const documented = table('Close codes').map(([code, action]) => [Number(code), action]);
    expect(documented).toEqual(Object.entries(closeCodes).map(([code, action]) => [Number(code), action]));
    for (const [code, action] of documented) expect(closeAction(Number(code))).toBe(action);
  });

  it('lists every error code and whether to retry', () => {
    const documented = table('Errors').map(([code, retry]) => [code, retry === 'yes']);
    expect(documented).toEqual(Object.entries(errorCodes).map(([code, { retry }]) => [code, retry]));
  });

  it('lists every event of the protocol', () => {
    expect(
      table('Pushes')
        .map(([event]) => event)
        .sort(),
    ).toEqual([...RESERVED_EVENTS].sort());
  });

  it('names the bounds', () => {
    const line = /Bounds:[^]*?\n\n/.exec(text)?.[0].replace(/\s+/g, ' ') ?? '';
    for (const bound of [
      `\`epoch\` ${bounds.epochChars} characters`,
      `\`channel\` ${bounds.channelBytes} bytes`,
      `\`event\` ${bounds.eventChars} characters`,
      `\`ids\` and \`users\` ${bounds.ids} entries of ${bounds.listedIdChars} characters`,
      `at most ${bounds.dataDepth} levels`,
    ]) {
      expect(line).toContain(bound);
    }
    expect(bounds.users).toBe(bounds.ids);
  });
});
