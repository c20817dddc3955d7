/**
 * The frames of /ws (protocol/frames.ts) as an AsyncAPI 3 document, served at /api/asyncapi.json. It describes the gateway:
 * `receive` is what a client asks, `send` what it is told.
 */

import { closeCodes, errorCodes } from '../../../protocol/codes.js';
import { SUBPROTOCOL, type Op, type PersonalPush } from '../../../protocol/frames.js';
import { bounds } from '../../../protocol/parse.js';
import {
  anyObject,
  authOk,
  badge,
  epoch,
  errorCode,
  flag,
  listOf,
  markTarget,
  notification,
  object,
  position,
  status,
  statuses,
  text,
  type Schema,
} from './schemas.js';

interface Ask {
  readonly summary: string;
  /** Besides `id` and `op`. */
  readonly fields: Schema;
  readonly ok: Schema;
}

const id: Schema = {
  description: 'Chosen by the client; the answer bears the same.',
  oneOf: [{ type: 'number' }, text(undefined, { maxLength: bounds.idChars })],
};
const channel = text('kind:id, or a room.', { minLength: 1, maxLength: bounds.channelBytes });
const event = text('No name of the protocol’s own pushes.', { minLength: 1, maxLength: bounds.eventChars });
const seq = position('In the user’s stream.');

const mark = (what: string): Ask => ({
  summary: `Marks notifications as ${what}; the user’s other sockets get state.`,
  fields: markTarget,
  ok: object({
    seq,
    ...(badge['properties'] as Record<string, Schema>),
    'unchanged?': flag('Nothing was left to mark: seq is the head, and no position of this mark.'),
  }),
});

export const asks: Readonly<Record<Op, Ask>> = {
  auth: {
    summary: 'Begins the session, or gives it a new token of the same subject.',
    fields: object({
      token: text('A JWT.'),
      'since?': position('The last seq that the client holds.'),
      'epoch?': epoch,
    }),
    ok: authOk,
  },
  subscribe: {
    summary: 'Joins a channel; missed events follow the answer.',
    fields: object({ channel, 'offset?': position('The last offset that the client holds.'), 'epoch?': epoch }),
    ok: object({
      channel,
      offset: position('The head of the channel’s stream.'),
      epoch,
      recovered: flag('False: what the client holds of this channel cannot be continued.'),
      state: {
        type: 'object',
        description: 'Every counter of the channel.',
        additionalProperties: { type: 'number' },
      },
    }),
  },
  unsubscribe: { summary: 'Leaves a channel.', fields: object({ channel }), ok: object({ channel }) },
  seen: mark('seen'),
  read: mark('read'),
  archive: mark('archived'),
  presence: {
    summary: 'Who is online, or in a channel; changes follow as pushes.',
    fields: {
      oneOf: [object({ users: listOf(text(), { minItems: 1, maxItems: bounds.users }) }), object({ channel })],
    },
    ok: statuses,
  },
  publish: {
    summary: 'An event to a channel, where the config allows it.',
    fields: object({ channel, event, 'data?': anyObject }),
    ok: {
      oneOf: [
        object({ channel, offset: position('Of the event.') }),
        object({ channel, answer: { description: 'What the application’s handler answered.' } }),
      ],
    },
  },
  ping: { summary: 'Whether the server is there.', fields: anyObject, ok: anyObject },
};

interface Push {
  readonly summary: string;
  /** Besides `event`. */
  readonly fields: Schema;
}

export const pushes: Readonly<Record<PersonalPush['event'], Push>> = {
  notification: {
    summary: 'New, or with an id that is known: changed in place. An announcement has no seq.',
    fields: object({ 'seq?': seq, data: notification }),
  },
  withdrawn: {
    summary: 'A notification is no longer true.',
    fields: object({ seq, data: object({ id: text(), type: text() }) }),
  },
  state: {
    summary: 'Marked on another socket.',
    fields: object({ seq, data: { allOf: [markTarget, object({ state: { enum: ['seen', 'read', 'archived'] } })] } }),
  },
  badge: { summary: 'After every change of the numbers.', fields: object({ data: badge }) },
  synced: { summary: 'The replay is over; seq is dense from here on.', fields: object({ seq }) },
  hello: { summary: 'The answer to a token that came with the upgrade.', fields: object({ data: authOk }) },
  resync: {
    summary: 'Throw away what you hold (of that channel), and fetch.',
    fields: object({ data: object({ reason: text(), 'channel?': channel }) }),
  },
  presence: {
    summary: 'Somebody came or went.',
    fields: object({ 'channel?': channel, data: object({ user_id: text(), status }) }),
  },
  unsubscribed: {
    summary: 'The user may no longer read the channel.',
    fields: object({ channel, data: object({ code: errorCode }) }),
  },
};

/** Everything else that is pushed: the config and those who publish choose the names. */
const channelPush: Push = {
  summary: 'An event of a channel, with an offset; or a counter update without one, which holds absolute values.',
  fields: object({ channel, 'offset?': position('In the channel’s stream, dense.'), data: anyObject }),
};
const channelEvent = text(
  'The counter.event of a source, the name given to publish or belfry.broadcast, or hidden: an event that this user may not see, ' +
    'whose offset it fills.',
  { examples: ['like_update', 'comment_update', 'message', 'hidden'] },
);

export function asyncapiDocument(version: string): Schema {
  const messages: Record<string, Schema> = { error: errorMessage };
  for (const [op, { summary, fields, ok }] of Object.entries(asks)) {
    messages[op] = message(op, summary, { allOf: [object({ id, op: { const: op } }), fields] });
    messages[`${op}_ok`] = message(`${op}_ok`, `The answer to ${op}.`, object({ id, ok }));
  }
  for (const [name, { summary, fields }] of Object.entries(pushes)) {
    messages[`push_${name}`] = message(name, summary, { allOf: [object({ event: { const: name } }), fields] });
  }
  messages['push_channel'] = message('channel', channelPush.summary, {
    allOf: [object({ event: channelEvent }), channelPush.fields],
  });
  const told = Object.keys(messages).filter((name) => name.startsWith('push_'));
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Belfry',
      version,
      description: 'Text frames, one JSON object each. Unknown fields are to be ignored.',
    },
    defaultContentType: 'application/json',
    servers: {
      gateway: {
        host: '{host}',
        protocol: 'wss',
        variables: { host: { default: 'localhost:10000' } },
        security: [{ $ref: '#/components/securitySchemes/token' }],
      },
    },
    channels: { ws: { address: '/ws', messages, bindings: { ws: handshake } } },
    operations: {
      ...Object.fromEntries(Object.keys(asks).map((op) => [op, operation(op)])),
      push: { action: 'send', channel: ws, messages: told.map(reference) },
    },
    components: {
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: `At the upgrade, or as the subprotocol bearer.<token> beside ${SUBPROTOCOL}, or in the first frame.`,
        },
      },
    },
    'x-close-codes': closeCodes,
    'x-error-codes': errorCodes,
  };
}

const ws = { $ref: '#/channels/ws' };

const handshake = {
  method: 'GET',
  query: {
    type: 'object',
    properties: {
      since: position('As in auth, where the token comes with the upgrade.'),
      epoch,
      token: text('Where auth.queryToken is on.'),
    },
  },
  headers: {
    type: 'object',
    properties: {
      Authorization: text('Bearer and a token.'),
      'Sec-WebSocket-Protocol': text(`${SUBPROTOCOL}, bearer.<token>`),
    },
  },
};

const errorMessage = message(
  'error',
  'A request was refused; retry says whether the same one may succeed later.',
  object({
    id: { description: 'Null where the request had no usable one.', oneOf: [{ type: 'null' }, id] },
    error: object({ code: errorCode, message: text(), retry: flag('Whether it may succeed later.') }),
  }),
);

function message(name: string, summary: string, payload: Schema): Schema {
  return { name, summary, payload };
}

function operation(op: string): Schema {
  return {
    action: 'receive',
    channel: ws,
    messages: [reference(op)],
    reply: { channel: ws, messages: [reference(`${op}_ok`), reference('error')] },
  };
}

function reference(name: string): Schema {
  return { $ref: `#/channels/ws/messages/${name}` };
}
