/** One person's bell: the badge, and the list of notifications. What it shows comes from the session alone. */
import { avatar } from './avatar.js';
import { announce, h, icon, replay, setText } from './dom.js';

/** The list keeps the newest; the rest is in the inbox. */
const kept = 50;
const leavingMs = 220;
const symbols = { like: 'heart', comment: 'comment', follow: 'person' };

export class Bell {
  #items = new Map();

  /** `session()` is null until there is one; `complain` shows an error. */
  constructor({ person, cast, session, complain }) {
    this.person = person;
    this.cast = cast;
    this.session = session;
    this.complain = complain;
    this.mark = h('span', { class: 'badge', hidden: true }, '0');
    this.button = h(
      'button',
      { class: 'bell', type: 'button', onclick: () => this.#seeAll() },
      icon('bell'),
      this.mark,
    );
    this.list = h('ul', { class: 'inbox', 'aria-label': `${person.name}’s notifications`, tabindex: '0' });
    this.badge({ unseen: 0 });
    this.#draw();
  }

  /** The inbox as it stands: what was shown is thrown away. */
  setInbox(items) {
    this.#items = new Map(items.map((item) => [item.id, item]));
    this.#draw();
  }

  /** New, or changed in place; true if it should ring. */
  notify(item) {
    this.#items.set(item.id, item);
    this.#draw(item.id);
    if (item.data.alert !== true) return false;
    replay(this.button, 'ringing');
    announce(`${this.person.name}’s bell: ${item.message}`);
    return true;
  }

  withdraw(id) {
    const row = this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    this.#items.delete(id);
    if (row === null) return;
    row.classList.add('leaving');
    setTimeout(() => this.#draw(), matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : leavingMs);
  }

  badge({ unseen }) {
    setText(this.mark, unseen > 99 ? '99+' : String(unseen));
    this.mark.hidden = unseen === 0;
    const news = unseen === 0 ? 'nothing new' : `${unseen} new. Mark as seen`;
    this.button.setAttribute('aria-label', `${this.person.name}’s bell, ${news}`);
  }

  /** Seen, read or archived on another socket of this person. */
  marked({ ids, through, state }) {
    for (const item of this.#items.values()) {
      if (ids === undefined ? (item.seq ?? 0) <= through : ids.includes(item.id)) item.data = { ...item.data, state };
    }
    this.#draw();
  }

  #draw(fresh) {
    const items = [...this.#items.values()].sort((a, b) => b.timestamp.localeCompare(a.timestamp));
    for (const item of items.splice(kept)) this.#items.delete(item.id);
    if (items.length === 0) {
      const friend = this.cast.find(({ id }) => id !== this.person.id);
      const hint = `All quiet. Like ${this.person.name}’s post as ${friend.name}, and this bell rings.`;
      this.list.replaceChildren(h('li', { class: 'nothing' }, hint));
      return;
    }
    // Drawn anew, so what has the focus must get it back.
    const focused = this.list.contains(document.activeElement)
      ? document.activeElement.closest('li')?.dataset.id
      : null;
    this.list.replaceChildren(...items.map((item) => this.#row(item, item.id === fresh)));
    if (typeof focused === 'string') this.list.querySelector(`[data-id="${CSS.escape(focused)}"] button`)?.focus();
    if (fresh !== undefined && focused === null) this.list.scrollTop = 0;
  }

  #row(item, fresh) {
    const actor = item.data.actors?.[0];
    const face = h(
      'span',
      { class: 'item-face' },
      actor === undefined ? null : avatar(this.cast, actor.id, actor.name),
      h('span', { class: `kind kind-${item.type}` }, icon(symbols[item.type] ?? 'bell')),
    );
    const isNew = item.data.state === 'unseen';
    return h(
      'li',
      {
        class: fresh ? 'item fresh' : 'item',
        'data-id': item.id,
        'data-type': item.type,
        'data-state': item.data.state,
      },
      h(
        'button',
        { type: 'button', onclick: () => this.#read(item) },
        face,
        h('span', { class: 'item-text' }, item.message),
        h('time', { datetime: item.timestamp }, clockTime(item.timestamp)),
        isNew ? h('span', { class: 'new' }, h('span', { class: 'unseen' }, 'new')) : null,
      ),
    );
  }

  #seeAll() {
    for (const item of this.#items.values())
      if (item.data.state === 'unseen') item.data = { ...item.data, state: 'seen' };
    this.#draw();
    this.session()?.seenAll().catch(this.complain);
  }

  #read(item) {
    item.data = { ...item.data, state: 'read' };
    this.#draw();
    this.session()?.read(item.id).catch(this.complain);
  }
}

function clockTime(iso) {
  return new Date(iso).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}
