/** Where the gateway of this machine answers, for commands that ask it. */

import { get as getPlain, type IncomingMessage } from 'node:http';
import { get as getSecure } from 'node:https';
import { networkInterfaces } from 'node:os';
import { json } from 'node:stream/consumers';
import type { Config } from '../config.js';

export interface LocalUrl {
  /** http or https, without a path. */
  readonly url: string;
  /**
   * Whether its certificate must be right. It is made for the name that the world knows, not for this address; but on the way to
   * an address of this machine there is nobody who could answer in its place.
   */
  readonly rejectUnauthorized: boolean;
}

export function localUrl({ host, port, tls }: Pick<Config['server'], 'host' | 'port' | 'tls'>): LocalUrl {
  const address = ['0.0.0.0', '::', ''].includes(host) ? '127.0.0.1' : host;
  const written = address.includes(':') ? `[${address}]` : address;
  return { url: `${tls === null ? 'http' : 'https'}://${written}:${port}`, rejectUnauthorized: !isOurs(address) };
}

/** The JSON that it answers. Throws what the network raises, also after `timeoutMs`. */
export async function getLocal(
  server: Parameters<typeof localUrl>[0],
  path: string,
  timeoutMs: number,
): Promise<unknown> {
  const { url, rejectUnauthorized } = localUrl(server);
  const get = server.tls === null ? getPlain : getSecure;
  const options = { rejectUnauthorized, agent: false, signal: AbortSignal.timeout(timeoutMs) };
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}${path}`, options, resolve).on('error', reject);
  });
  return json(answer);
}

function isOurs(address: string): boolean {
  const ours = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return address === 'localhost' || address.startsWith('127.') || ours.some((other) => other.address === address);
}
