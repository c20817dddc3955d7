/**
 * `belfry/client` as Node gets it (condition `node` in package.json): the same, with the WebSocket of package `ws` where Node
 * has none of its own (Node 20). Browsers and bundlers get index.ts, which needs nothing.
 */

import { WebSocket } from 'ws';
import { connect as connectWith, type Client, type ConnectOptions } from './index.js';
import type { WebSocketClass } from './socket.js';

export * from './index.js';

/** As `connect` of index.ts. */
export function connect(options: ConnectOptions): Client {
  const own = (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  return connectWith({ ...options, WebSocket: options.WebSocket ?? own ?? WebSocket });
}
