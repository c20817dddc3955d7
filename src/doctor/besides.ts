/**
 * What `belfry start` needs besides the database, tried as it would: the broker, the TLS files, the handlers of the application.
 *
 * The module of handlers is loaded, in a thread of its own; none of them is called, and nothing is published.
 */

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { createBroker } from '../broker/create.js';
import type { BrokerConfig, Config } from '../config.js';
import { counted } from '../counted.js';
import { messageOf } from '../errors.js';
import { loadHandlers } from '../gateway/extensions/extensions.js';
import { HandlerThread } from '../gateway/extensions/handler-thread.js';
import { fail, ok, several, spoken, warn } from './check.js';
import type { Check } from './check.js';

/** Who renews by hand needs so long; what renews by itself has done it by then. */
const renewWithinMs = 14 * 86_400_000;

/** What the config does not name is not looked at. */
export async function checkBesides({ broker, server, extensions }: Config): Promise<Check[]> {
  return [
    ...(broker.kind === 'memory' ? [] : [await checkBroker(broker)]),
    ...(server.tls === null ? [] : [checkTls(server.tls)]),
    ...(extensions === null ? [] : [await checkExtensions(extensions)]),
  ];
}

const nothing = (): void => undefined;

async function checkBroker(config: BrokerConfig): Promise<Check> {
  const broker = await createBroker(config, { info: nothing, warn: nothing });
  try {
    await broker.start();
    return ok('broker', `${config.kind} answers`);
  } catch (error) {
    const [detail = ''] = messageOf(error).split(' Check ');
    return fail('broker', detail, 'Start it, or correct broker (REDIS_URL and NATS_URL win over it).');
  } finally {
    await broker.stop();
  }
}

function checkTls({ cert, key }: { readonly cert: string; readonly key: string }): Check {
  try {
    const chain = readFileSync(cert);
    createSecureContext({ cert: chain, key: readFileSync(key) });
    return judgeCertificate(new Date(new X509Certificate(chain).validTo), new Date());
  } catch (error) {
    return fail('tls', messageOf(error), 'Correct server.tls: PEM files with the whole chain and its key.');
  }
}

/** Pure. */
export function judgeCertificate(ends: Date, now: Date): Check {
  const leftMs = ends.getTime() - now.getTime();
  const cure = 'Renew it; a process that runs reads the files again on SIGHUP.';
  if (leftMs <= 0) return fail('tls', `the certificate has ended on ${ends.toISOString()}`, cure);
  const detail = `the certificate ends in ${spoken(leftMs / 1_000)}`;
  return leftMs < renewWithinMs ? warn('tls', detail, cure) : ok('tls', detail);
}

async function checkExtensions(file: string): Promise<Check> {
  const ask = (): Promise<never> => Promise.reject(new Error('nothing is called here'));
  const thread = new HandlerThread({ file, ask, said: nothing, trouble: nothing, ended: nothing });
  try {
    const events = await loadHandlers(thread, file);
    return ok('extensions', `${counted(events.length, 'handler')}: ${several(events)}`);
  } catch (error) {
    return fail('extensions', messageOf(error), 'Correct extensions, or the module that it names.');
  } finally {
    await thread.stop();
  }
}
