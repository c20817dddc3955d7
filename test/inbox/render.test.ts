/** The `data` of a notification as clients know it. */

import { expect, it } from 'vitest';
import { Messages } from '../../src/inbox/messages.js';
import { notificationData, type NotificationView } from '../../src/inbox/render.js';

const view: NotificationView = {
  id: '981',
  type: 'comment',
  objectKind: 'post',
  objectId: '456',
  subjectKind: 'comment',
  subjectId: '7',
  actors: ['123', '5'],
  actorCount: 2,
  eventCount: 3,
  state: 'unseen',
  alert: true,
  message: null,
  data: null,
  lastAtMs: Date.parse('2026-01-15T12:00:00.000Z'),
};
const words = { names: new Map([['123', 'Ada']]), messages: new Messages({}), locale: null };

it('names the latest actor, the object and the subject', () => {
  expect(notificationData(view, words)).toEqual({
    id: '981',
    type: 'comment',
    user_id: '123',
    post_id: '456',
    comment_id: '7',
    message: 'Ada and Someone commented on your post',
    timestamp: '2026-01-15T12:00:00.000Z',
    data: {
      actor_count: 2,
      event_count: 3,
      actors: [
        { id: '123', name: 'Ada' },
        { id: '5', name: 'Someone' },
      ],
      object: { kind: 'post', id: '456' },
      state: 'unseen',
      alert: true,
    },
  });
});

it.each([['objectKind'], ['subjectKind']] as const)(
  'whose %s is a user: user_id is the latest actor all the same',
  (kind) => {
    expect(notificationData({ ...view, [kind]: 'user' }, words)['user_id']).toBe('123');
    expect(notificationData({ ...view, [kind]: 'user', actors: [] }, words)).not.toHaveProperty('user_id');
  },
);
