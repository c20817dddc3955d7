/**
 * A person's live session: the list as it stands, then everything after it over the WebSocket, with a token and a socket of
 * its own. This is all that an application does to be live; the rest of the page only shows it.
 */
import { connect } from '/belfry/client/index.js';

const listLength = 30;

/** Resolves with what the pane may ask. */
export async function openSession({ pane, posts, backend, way }) {
  const { person } = pane;
  const token = () => backend.token(person.id);

  const load = async () => {
    const response = await fetch(`/api/notifications?limit=${listLength}`, {
      headers: { authorization: `Bearer ${await token()}` },
    });
    if (!response.ok) throw new Error(`The list of ${person.name}’s notifications: ${response.status}`);
    const page = await response.json();
    pane.setInbox(page);
    return { userId: person.id, seq: page.seq, epoch: page.epoch };
  };

  // From the list's own position on nothing is missed.
  const belfry = connect({ url: '/ws', token, position: await load() });
  const reload = () => load().catch(() => undefined);

  belfry.on('status', (status) => pane.connection(wordOf(status)));
  belfry.on('notification', (item, { seq }) => {
    way.arrived(person.id, item.type, item.data.alert);
    pane.notify({ ...item, seq });
  });
  belfry.on('withdrawn', ({ id, type }) => {
    way.arrived(person.id, type, false);
    pane.withdraw(id);
  });
  belfry.on('state', (change) => pane.marked(change));
  belfry.on('badge', (badge) => pane.badge(badge));
  belfry.on('gap', ({ channel }) => (channel === null ? reload() : pane.feed.loadSoon()));

  for (const post of posts) {
    belfry.subscribe(
      `post:${post}`,
      ({ data }) => pane.counted(post, data, data.comment),
      (counters) => pane.counted(post, counters),
    );
  }
  // The answer holds the numbers; `state` and `badge` go to this person's other sockets.
  const answered = (answer) => pane.badge(answer);
  return {
    seenAll: () => belfry.seen({ through: belfry.position?.seq ?? 0 }).then(answered),
    read: (id) => belfry.read([id]).then(answered),
  };
}

function wordOf({ status, attempt }) {
  if (status === 'online') return 'live';
  if (status === 'closed') return 'closed';
  return status === 'connecting' && attempt === 0 ? 'connecting' : 'lost';
}
