/** One person's window: the bell with its list, the feed, and whether the session is live. */
import { avatar, hueOf } from './avatar.js';
import { Bell } from './bell.js';
import { h, icon, setText } from './dom.js';
import { Feed } from './feed.js';

const words = { live: 'live', connecting: 'connecting…', lost: 'connection lost', closed: 'session ended' };

export class Pane {
  #session = null;

  /** `changed(pane, what)`: told of `badge` (with the number), and of `rung`. */
  constructor({ person, cast, names, backend, clicked, changed }) {
    this.person = person;
    this.hue = hueOf(cast, person.id);
    this.changed = changed;
    const complain = (error) => this.#complain(error);
    this.bell = new Bell({ person, cast, session: () => this.#session, complain });
    this.feed = new Feed({ person, cast, names, backend, clicked, complain });
    this.status = h('span', {}, words.connecting);
    this.lost = h(
      'p',
      { class: 'strip', role: 'status', hidden: true },
      'Connection lost. What happens now rings when it is back.',
    );
    this.trouble = h('p', { class: 'strip trouble', role: 'alert', hidden: true });
    this.element = this.#build(cast);
  }

  /** Shows the feed; resolves with the ids of its posts. */
  load() {
    return this.feed.load();
  }

  use(session) {
    this.#session = session;
  }

  // From the session.

  connection(state) {
    this.element.dataset.connection = state;
    setText(this.status, words[state]);
    this.lost.hidden = state !== 'lost';
  }

  setInbox(page) {
    this.bell.setInbox(page.items);
    this.badge(page);
  }

  notify(item) {
    if (this.bell.notify(item)) this.changed(this, { rung: true });
  }

  withdraw(id) {
    this.bell.withdraw(id);
  }

  marked(change) {
    this.bell.marked(change);
  }

  badge(badge) {
    this.bell.badge(badge);
    this.changed(this, { badge: badge.unseen });
  }

  counted(postId, counts, comment) {
    this.feed.counted(postId, counts, comment);
  }

  #build(cast) {
    const { person } = this;
    const key = person.name.toLowerCase();
    const titleId = `name-${key}`;
    const ownWindow = {
      class: 'quiet-icon own-window',
      href: `/?only=${key}`,
      target: '_blank',
      rel: 'noopener',
      title: 'Open in a window of its own',
      'aria-label': `Open ${person.name} in a new window`,
    };
    return h(
      'section',
      { class: `pane ${this.hue}`, 'data-person': key, 'data-connection': 'connecting', 'aria-labelledby': titleId },
      h(
        'header',
        { class: 'pane-head' },
        avatar(cast, person.id, person.name),
        h(
          'div',
          { class: 'pane-name' },
          h('h2', { id: titleId }, person.name),
          h('p', { class: 'status' }, h('i', { class: 'dot' }), this.status),
        ),
        h('a', ownWindow, icon('open')),
        this.bell.button,
      ),
      this.lost,
      this.trouble,
      this.bell.list,
      this.feed.element,
    );
  }

  /** Shows what went wrong, in words for the person; null takes it away. */
  #complain(error) {
    setText(this.trouble, error?.message ?? '');
    this.trouble.hidden = error === null;
  }
}
