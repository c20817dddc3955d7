/** `belfry tail`: a client on the command line: one JSON line per frame, as it came. Reconnects and resumes as any client does. */

import type { Command } from 'commander';
import { WebSocket } from 'ws';
import { connect } from '../client/index.js';
import type { Client, ConnectOptions, Status } from '../client/index.js';
import { DEFAULT_PATH, loadConfig, portOf } from '../config.js';
import { BelfryError, messageOf } from '../errors.js';
import { addCommand, note, print, wholeNumber } from './common.js';
import type { CommonOptions } from './common.js';
import { localUrl } from './local.js';

interface TailOptions extends CommonOptions {
  readonly token: string;
  readonly url?: string;
  readonly channel: readonly string[];
  readonly since?: number;
  readonly epoch?: string;
}

type Target = TailOptions & { readonly server: Pick<ConnectOptions, 'url' | 'WebSocket'> };

export function registerTail(program: Command): void {
  const command = addCommand(program, 'tail', 'connect as a client and print every frame as one line of JSON')
    .requiredOption('--token <token>', 'who to be; - reads it from stdin')
    .option('--url <url>', 'where to connect; by default where the config has the gateway of this machine')
    .option('--channel <name...>', 'channels to subscribe to; may be repeated', [])
    .option('--since <seq>', 'resume from this position; needs --epoch', wholeNumber(0, Number.MAX_SAFE_INTEGER))
    .option('--epoch <epoch>', 'the epoch that --since belongs to')
    .option('--json', 'changes nothing: every frame is a line of JSON anyway')
    .action(async (options: TailOptions) => {
      if ((options.since === undefined) !== (options.epoch === undefined))
        command.error('error: --since and --epoch go together');
      const token = options.token === '-' ? await readStdin() : options.token;
      if (token === '')
        command.error(`error: --token is empty${options.token === '-' ? ': nothing came on stdin' : ''}`);
      const server = options.url === undefined ? await localServer(options) : { url: options.url, WebSocket };
      if (!/^(?:ws|http)s?:\/\//.test(server.url)) command.error('error: --url must begin with ws:// or wss://');
      const { code, reason } = await follow({ ...options, token, server });
      if (code !== 1000)
        throw new BelfryError('unavailable', `the server closed with ${code}${reason === '' ? '' : ` (${reason})`}.`);
    });
}

/** Prints frames until a close that is final, or (1000) Ctrl-C, or until nobody reads them any more. */
async function follow(options: Target): Promise<{ code: number; reason: string }> {
  return new Promise((resolve, reject) => {
    let client: Client | null = null;
    const end = (code: number, reason: string): void => {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      process.stdout.off('error', interrupt);
      resolve({ code, reason });
      client?.close();
    };
    const interrupt = (): void => end(1000, '');
    process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
    process.stdout.on('error', interrupt);
    try {
      client = connect(clientOptions(options, () => client?.status, end));
    } catch (error) {
      reject(new BelfryError('config_invalid', messageOf(error)));
      return;
    }
    client.on('frame', (frame) => print(JSON.stringify(frame)));
    client.on('status', (status) => {
      if (status.status === 'closed') end(status.code, status.reason);
      if (status.status === 'waiting') {
        const why = status.reason === '' ? String(status.code) : `${status.code}: ${status.reason}`;
        note(`belfry: not connected (${why}), trying again in ${(status.retryInMs / 1000).toFixed(1)} s`);
      }
    });
    for (const channel of options.channel) client.subscribe(channel, () => undefined);
  });
}

function clientOptions(
  options: Target,
  status: () => Status | undefined,
  end: (code: number, reason: string) => void,
): ConnectOptions {
  return {
    ...options.server,
    // There is only this one: asked for a fresh one while connected, we stay until the session ends, and after that it is over.
    token: ({ fresh }) => {
      if (!fresh) return options.token;
      if (status()?.status !== 'online') end(4401, 'the token is not valid, or no longer');
      throw new Error('there is no other token');
    },
    ...(options.since === undefined
      ? {}
      : { position: { userId: null, seq: options.since, epoch: options.epoch ?? '' } }),
  };
}

async function localServer(options: CommonOptions): Promise<Target['server']> {
  const isDefault = options.config === DEFAULT_PATH;
  const config = await loadConfig(options.config).catch((error: unknown) => {
    if (!isDefault) throw error;
    return null;
  });
  const { url, rejectUnauthorized } = localUrl(config?.server ?? { host: '', port: portOf(), tls: null });
  class LocalWebSocket extends WebSocket {
    constructor(address: string, protocols?: string | string[]) {
      super(address, protocols, { rejectUnauthorized });
    }
  }
  return { url: `${url}/ws`, WebSocket: LocalWebSocket };
}

async function readStdin(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk;
  return text.trim();
}
