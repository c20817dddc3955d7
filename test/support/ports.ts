/** Ports for what needs one that is known before it listens. */

import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';

/** One of loopback that nobody listened on a moment ago; somebody may be faster. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
