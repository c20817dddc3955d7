/** What one person who comes back is told. */

import type { Inbox, Recovery } from '../../src/inbox/types.js';

export async function recover(
  inbox: Inbox,
  userId: string,
  since: number | null,
  epoch: string | null,
): Promise<Recovery> {
  const [recovery] = await inbox.catchUp([{ userId, since, epoch }]);
  if (recovery === undefined) throw new Error(`nothing for ${userId}`);
  return recovery;
}
