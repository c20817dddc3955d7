/** A page of React for browser.test.ts: a bell with its list, a post with its counters. */

import { createElement as h, StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { connect } from '../../../src/client/index.js';
import {
  BelfryProvider,
  useBadge,
  useChannel,
  useEvent,
  useNotifications,
  useStatus,
  type NotificationPage,
} from '../../../src/client/react.js';

const parameters = new URLSearchParams(location.search);
const [server, token, post] = ['server', 'token', 'post'].map((name) => parameters.get(name) ?? '') as [
  string,
  string,
  string,
];

async function load(before: string | null): Promise<NotificationPage> {
  const query = before === null ? '' : `&before=${encodeURIComponent(before)}`;
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${server}/api/notifications?limit=3${query}`, { headers });
  return (await answer.json()) as NotificationPage;
}

const button = (id: string, onClick: () => unknown) => h('button', { id, onClick: () => void onClick() }, id);

function Bell() {
  const { unseen, unread } = useBadge();
  const { items, loading, hasMore, error, loadMore, read, archive } = useNotifications(load);
  const [heard, setHeard] = useState(0);
  useEvent('notification', () => setHeard(heard + 1));
  const first = () => items.slice(0, 1).map(({ id }) => id);
  return h(
    'div',
    null,
    h('b', { id: 'badge' }, `${unseen}/${unread}`),
    h('i', { id: 'load' }, error === null ? `${loading ? 'loading' : 'loaded'}${hasMore ? ', more' : ''}` : 'error'),
    h('i', { id: 'heard' }, heard),
    h(
      'ul',
      null,
      items.map(({ id, message, data }) => h('li', { key: id }, `${message} (${data.state})`)),
    ),
    button('more', loadMore),
    button('read', () => read(first())),
    button('archive', () => archive(first())),
  );
}

function Post() {
  const counters = useChannel(`post:${post}`);
  return h(
    'p',
    { id: 'post' },
    `${counters['likes_count'] ?? '?'} likes, ${counters['comments_count'] ?? '?'} comments`,
  );
}

function Page() {
  const { status } = useStatus();
  const [shown, setShown] = useState(true);
  return h(
    'main',
    null,
    h('i', { id: 'status' }, status),
    shown ? [h(Bell, { key: 'bell' }), h(Post, { key: 1 }), h(Post, { key: 2 })] : null,
    button('toggle', () => setShown(!shown)),
  );
}

const belfry = connect({ url: server, token: () => token });
Object.assign(globalThis, { belfry });
const root = document.body.appendChild(document.createElement('div'));
createRoot(root).render(h(StrictMode, null, h(BelfryProvider, { client: belfry }, h(Page))));
