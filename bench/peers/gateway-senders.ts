/**
 * The servers that the gateway bench compares. Each checks a JWT for every socket, and puts every socket into the one
 * channel that is published to; the peers do nothing else.
 */

import { createSecretKey, type KeyObject } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo } from 'node:net';
import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';
import * as uWS from 'uWebSockets.js';
import { WebSocketServer, type WebSocket } from 'ws';
import type { GatewayKind, GatewayServerConfig, Sender } from './gateway-kinds.js';
import { payload } from './gateway-kinds.js';
import { belfrySender } from './gateway-belfry.js';

export const SENDERS: Record<GatewayKind, (config: GatewayServerConfig) => Promise<Sender>> = {
  uws: uwsSender,
  'uws-loop': uwsLoopSender,
  ws: wsSender,
  'socket-io': socketIoSender,
  'socket-io-uws': socketIoUwsSender,
  belfry: belfrySender,
};

const CHANNEL = 'post:1';

/** A key made once: given the secret as a string, jsonwebtoken needs sixty times as long. */
const keyOf = (secret: string): KeyObject => createSecretKey(Buffer.from(secret));

function userOf(token: string, key: KeyObject): string {
  const claims = jwt.verify(token, key, { algorithms: ['HS256'] });
  if (typeof claims === 'string' || claims.sub === undefined) throw new Error('a token without a subject');
  return claims.sub;
}

const bearerOf = (header: string | undefined): string => (header ?? '').replace(/^Bearer /, '');

const frame = (n: number): string => JSON.stringify({ event: 'like_update', channel: CHANNEL, data: payload(n) });

async function uwsSender(config: GatewayServerConfig): Promise<Sender> {
  const { app, port } = await uwsServer(config, () => undefined);
  return {
    port,
    publish: (n) => void app.publish(CHANNEL, frame(n)),
    send: (user, n) => void app.publish(`user:${user}`, frame(n)),
  };
}

/** The same without topics: a `send` to each socket. */
async function uwsLoopSender(config: GatewayServerConfig): Promise<Sender> {
  const people = new Map<string, UwsSocket>();
  const { port } = await uwsServer(config, (socket, open) => {
    if (open) people.set(socket.getUserData().user, socket);
    else people.delete(socket.getUserData().user);
  });
  return {
    port,
    publish(n) {
      const text = frame(n);
      for (const socket of people.values()) socket.send(text);
    },
    send: (user, n) => void people.get(user)?.send(frame(n)),
  };
}

type UwsSocket = uWS.WebSocket<{ user: string }>;

async function uwsServer(
  { secret }: GatewayServerConfig,
  changed: (socket: UwsSocket, open: boolean) => void,
): Promise<{ app: uWS.TemplatedApp; port: number }> {
  const key = keyOf(secret);
  const app = uWS.App();
  app.ws<{ user: string }>('/*', {
    maxBackpressure: 2 ** 20,
    upgrade(response, request, context) {
      const user = userOf(bearerOf(request.getHeader('authorization')), key);
      const webSocketKey = request.getHeader('sec-websocket-key');
      response.upgrade({ user }, webSocketKey, '', request.getHeader('sec-websocket-extensions'), context);
    },
    open(socket) {
      socket.subscribe(CHANNEL);
      socket.subscribe(`user:${socket.getUserData().user}`);
      changed(socket, true);
    },
    close: (socket) => changed(socket, false),
  });
  return { app, port: await listen(app) };
}

function listen(app: uWS.TemplatedApp): Promise<number> {
  return new Promise((resolve, reject) => {
    app.listen('127.0.0.1', 0, (socket) => {
      if (socket === false) reject(new Error('uWebSockets.js does not listen'));
      else resolve(uWS.us_socket_local_port(socket));
    });
  });
}

async function wsSender({ secret }: GatewayServerConfig): Promise<Sender> {
  const key = keyOf(secret);
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await new Promise((resolve) => server.once('listening', resolve));
  const people = new Map<string, WebSocket>();
  server.on('connection', (socket, request: IncomingMessage) => {
    people.set(userOf(bearerOf(request.headers.authorization), key), socket);
  });
  return {
    port: (server.address() as AddressInfo).port,
    publish(n) {
      const text = frame(n);
      for (const socket of server.clients) socket.send(text);
    },
    send: (user, n) => people.get(user)?.send(frame(n)),
  };
}

async function socketIoSender(config: GatewayServerConfig): Promise<Sender> {
  const http = createServer();
  const io = socketIo(config, new Server(http, { transports: ['websocket'], pingInterval: 600_000 }));
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  return { port: (http.address() as AddressInfo).port, ...io };
}

async function socketIoUwsSender(config: GatewayServerConfig): Promise<Sender> {
  const app = uWS.App();
  const server = new Server({ transports: ['websocket'], pingInterval: 600_000 });
  server.attachApp(app);
  const io = socketIo(config, server);
  return { port: await listen(app), ...io };
}

function socketIo({ secret }: GatewayServerConfig, io: Server): Omit<Sender, 'port'> {
  const key = keyOf(secret);
  io.use((socket, next) => {
    const { token } = socket.handshake.auth as { token?: string };
    void socket.join([CHANNEL, `user:${userOf(token ?? '', key)}`]);
    next();
  });
  return {
    publish: (n) => void io.to(CHANNEL).emit('like_update', { channel: CHANNEL, data: payload(n) }),
    send: (user, n) => void io.to(`user:${user}`).emit('like_update', { channel: CHANNEL, data: payload(n) }),
  };
}
