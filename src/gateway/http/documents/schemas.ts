/**
 * The shapes that frames and HTTP answers share, as JSON Schemas; the types stand in protocol/frames.ts. Used by both documents,
 * which are checked against running code (test/gateway/documents.test.ts).
 */

import { errorCodes } from '../../../protocol/codes.js';
import { bounds } from '../../../protocol/parse.js';

export type Schema = Readonly<Record<string, unknown>>;

export const text = (description?: string, more: Schema = {}): Schema => ({
  type: 'string',
  ...(description === undefined ? {} : { description }),
  ...more,
});
export const position = (description: string): Schema => ({ type: 'integer', minimum: 0, description });
export const flag = (description: string): Schema => ({ type: 'boolean', description });
export const listOf = (items: Schema, more: Schema = {}): Schema => ({ type: 'array', items, ...more });
export const anyObject: Schema = { type: 'object' };

/** An object; names that end with `?` may be left out. */
export function object(properties: Readonly<Record<string, Schema>>, more: Schema = {}): Schema {
  const entries = Object.entries(properties);
  const required = entries.map(([name]) => name).filter((name) => !name.endsWith('?'));
  return {
    type: 'object',
    properties: Object.fromEntries(entries.map(([name, schema]) => [name.replace(/\?$/, ''), schema])),
    ...(required.length === 0 ? {} : { required }),
    ...more,
  };
}

const count: Schema = { type: 'integer', minimum: 0, maximum: 100, description: 'At most 100.' };
const time = text('ISO 8601.', { format: 'date-time' });

export const epoch = text('Identity of all positions: those of another epoch mean nothing.');
export const status: Schema = { enum: ['online', 'offline'] };
export const statuses: Schema = {
  type: 'object',
  description: 'User id → status; whom the caller may not see is offline.',
  additionalProperties: status,
};
export const badge = object({ unseen: count, unread: count });
export const errorCode: Schema = { enum: Object.keys(errorCodes) };

export const markTarget: Schema = {
  oneOf: [
    object({
      ids: listOf(text(undefined, { maxLength: bounds.listedIdChars }), { minItems: 1, maxItems: bounds.ids }),
    }),
    object({ through: position('A seq: everything up to it.') }),
  ],
};

export const notification = object(
  {
    id: text('Begins with a for an announcement.'),
    type: text('like comment follow message mention friend_request job_application system, or the application’s own.'),
    'user_id?': text('The latest actor.'),
    message: text(),
    timestamp: time,
    data: object(
      {
        'actor_count?': position('Distinct actors.'),
        'event_count?': position('Events.'),
        'actors?': listOf(object({ id: text(), name: text() }), { description: 'Newest first.' }),
        'object?': object({ kind: text(), id: text() }),
        state: { enum: ['unseen', 'seen', 'read', 'archived'] },
        alert: flag('Whether it should ring.'),
      },
      { description: 'Also what was given to belfry.notify.' },
    ),
  },
  { description: 'Also the ids of the object and of the subject: post_id, comment_id.' },
);

export const authOk = object({
  session: text('For belfry.revoke_session.'),
  user_id: text(),
  seq: position('The head of the user’s stream: what the replay leads up to.'),
  epoch,
  recovered: flag('False: fetch GET /api/notifications.'),
  unseen: count,
  unread: count,
  ping_s: {
    type: 'number',
    description: 'The server pings this often; silent for twice that, either side may give up.',
  },
  expires_at: time,
});

export const page = object({
  items: listOf(notification),
  announcements: listOf(notification),
  unseen: count,
  unread: count,
  hasMore: flag('There is another page.'),
  seq: position('The head of the user’s stream.'),
  epoch,
  next: { type: ['string', 'null'], description: '`before` of the next page; null on the last.' },
});
