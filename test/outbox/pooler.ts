/**
 * A transaction-mode pooler in small: a client has a server connection only from its first message until the server says
 * that no transaction is open; the connection used last is given out first; what the server says unasked is dropped.
 */
import { createServer, type Socket } from 'node:net';
import pg from 'pg';

export interface Pooler {
  readonly port: number;
  close(): Promise<void>;
}

interface Server {
  readonly client: pg.Client;
  readonly socket: Socket;
  user: Socket | null;
}

export async function startPooler(url: string, size: number): Promise<Pooler> {
  const idle = await Promise.all(Array.from({ length: size }, () => openServer(url, (server) => idle.push(server))));
  const all = [...idle];
  const users = new Set<Socket>();
  const listener = createServer((user) => {
    users.add(user);
    user.on('error', () => undefined);
    let server: Server | null = null;
    let welcomed = false;
    user.on('data', (chunk: Buffer) => {
      if (!welcomed) {
        welcomed = true;
        user.write(welcome);
        return;
      }
      if (server?.user !== user) server = idle.pop() ?? null;
      // X is goodbye: for the pooler, not for the server.
      if (server === null || chunk[0] === 0x58) {
        user.destroy();
        return;
      }
      server.user = user;
      server.socket.write(chunk);
    });
    user.on('close', () => {
      users.delete(user);
      if (server?.user === user) {
        server.user = null;
        server.socket.write(simpleQuery('rollback'));
      }
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('the pooler has no port');
  return {
    port: address.port,
    async close() {
      for (const user of users) user.destroy();
      for (const server of all) server.socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

/** pg signs in; from then on the socket is ours. */
async function openServer(url: string, release: (server: Server) => void): Promise<Server> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
  stream.removeAllListeners('data');
  const server: Server = { client, socket: stream, user: null };
  let rest: Buffer = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    server.user?.write(chunk);
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length > rest.readInt32BE(1)) {
      const length = 1 + rest.readInt32BE(1);
      // ReadyForQuery, outside of a transaction.
      if (rest[0] === 0x5a && rest[5] === 0x49) {
        server.user = null;
        release(server);
      }
      rest = rest.subarray(length);
    }
  });
  return server;
}

function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function simpleQuery(text: string): Buffer {
  return message('Q', Buffer.from(`${text}\0`));
}

/** AuthenticationOk, BackendKeyData, ReadyForQuery. */
const welcome = Buffer.concat([
  message('R', Buffer.alloc(4)),
  message('K', Buffer.alloc(8)),
  message('Z', Buffer.from('I')),
]);
