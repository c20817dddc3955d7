/** The question before what can't be undone, at a terminal that is a pair of streams here. */

import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { confirm } from '../../src/cli/common.js';

const asked = async (keys: string | null): Promise<void> => {
  const terminal = () => Object.assign(new PassThrough(), { isTTY: true });
  const [input, output] = [terminal(), terminal()];
  const answer = confirm('Remove it?', 'uninstall', 'nothing was removed.', { input, output });
  if (keys === null) input.end();
  else input.write(keys);
  await answer;
};

it('goes on after a yes only', async () => {
  await asked('y\r');
  await asked('YES\r');
  await expect(asked('\r')).rejects.toThrow('nothing was removed.');
  await expect(asked('yesterday\r')).rejects.toThrow('nothing was removed.');
});

it.each([
  ['Ctrl-C', '\x03'],
  ['Ctrl-D', '\x04'],
  ['A terminal that is closed', null],
])('%s is a no, and leaves nobody waiting', async (_name, key) => {
  await expect(asked(key)).rejects.toMatchObject({ code: 'unavailable', message: 'nothing was removed.' });
});
