/**
 * The way of one event, as a waterfall: from the click to the bell.
 *
 * Three clocks meet here: the page's (click, arrival), the demo's process (commit, relay) and the database's (outbox row, in
 * whole milliseconds; the demo has already set it to its own). Steps are shown as measured, so one may seem to come a
 * millisecond before the last; the sum, click to bell, is taken on one clock.
 */
import { Clock, now } from './clock.js';
import { formatDuration, formatMs, h, icon, setText } from './dom.js';

const keptWays = 30;
/** After this long without a push the event is taken for one that rings nobody: likes and follows may wait for a window of 5 s. */
const patienceMs = { post_like: 8000, user_follow: 8000, post_comment: 1500 };
/** What has not arrived this long after the push waits for the end of its window: others of its kind came shortly before. */
const heldMs = 150;
/** What the comparison of clocks may leave, at worst. */
const slackMs = 5;

const typeOf = { post_like: 'like', post_comment: 'comment', user_follow: 'follow' };
const verbs = {
  post_like: ['liked', 'took back a like of'],
  post_comment: ['commented on', 'deleted a comment on'],
  user_follow: ['followed', 'unfollowed'],
  'belfry.blocks': ['blocked', 'unblocked'],
};

export class WayPanel {
  #ways = [];
  #clicks = new Map();
  #arrivals = [];
  #shown = null;
  #clock = new Clock();

  constructor({ cast }) {
    this.cast = new Map(cast.map((person) => [person.id, person]));
    this.headline = h('p', { class: 'way-title' });
    this.total = h('p', { class: 'way-total' });
    this.steps = h('ol', { class: 'steps' });
    this.earlier = h('ol', { class: 'earlier', 'aria-label': 'Earlier events', tabindex: '0' });
    this.element = h(
      'section',
      { class: 'card way', 'aria-labelledby': 'way-name' },
      h('h2', { id: 'way-name' }, 'The way of one event'),
      this.headline,
      this.total,
      this.steps,
      this.earlier,
    );
    this.#drawEmpty();
  }

  /** Rejects if the demo does not answer. */
  compareClocks(backend) {
    return this.#clock.compare(backend);
  }

  clicked(requestId, { what, who, whom }) {
    this.#clicks.set(requestId, { at: now(), what, who, whom });
    if (this.#clicks.size > 200) this.#clicks.delete(this.#clicks.keys().next().value);
  }

  /** A push reached a person's window. `rings`: it is news, and not an update in place. */
  arrived(personId, type, rings) {
    this.#arrivals.push({ personId, type, rings, at: now() });
    if (this.#arrivals.length > 200) this.#arrivals.shift();
    for (const way of this.#ways) if (way.waiting) this.#match(way);
  }

  /** From the demo: one event went through the relay. */
  add(data) {
    const click = this.#clicks.get(data.requestId) ?? null;
    this.#clicks.delete(data.requestId);
    if (click !== null && data.receivedAtMs !== null) this.#clock.sentAndReceived(click.at, data.receivedAtMs);
    const way = {
      ...data,
      click,
      recipient: data.recipients.map((id) => this.cast.get(id)).find((person) => person !== undefined) ?? null,
      arrivedAt: null,
      waiting: false,
    };
    way.waiting = typeOf[data.source] !== undefined && way.recipient !== null && way.recipient.id !== way.actor?.id;
    this.#ways.unshift(way);
    this.#ways.length = Math.min(this.#ways.length, keptWays);
    this.#match(way);
    // An event of the crowd does not push away what the visitor has just done.
    if (this.#shown === null || click !== null || now() - this.#shown.addedAt > 5000) this.#shown = way;
    way.addedAt = now();
    if (way.waiting) {
      setTimeout(() => this.#draw(), heldMs * 2);
      setTimeout(() => this.#giveUp(way), patienceMs[way.source]);
    }
    this.#draw();
  }

  /** The first push of this kind to this person after the event: one push may tell of many events. */
  #match(way) {
    if (!way.waiting) return;
    const type = typeOf[way.source];
    const earliest = this.#here(way.writtenAtMs) - slackMs;
    const arrival = this.#arrivals.find(
      (one) => one.personId === way.recipient.id && one.type === type && one.at >= earliest,
    );
    if (arrival === undefined) return;
    if (way.click !== null) this.#clock.leftAndArrived(way.pushedAtMs, arrival.at);
    way.arrivedAt = arrival.at;
    way.rings = arrival.rings;
    way.waiting = false;
    this.#draw();
  }

  #giveUp(way) {
    if (!way.waiting) return;
    way.waiting = false;
    this.#draw();
  }

  /** A time of the demo on the page's clock; null stays null. */
  #here(ms) {
    return ms === null ? null : ms - this.#clock.aheadMs;
  }

  #start(way) {
    return way.click?.at ?? this.#here(way.committedAtMs ?? way.writtenAtMs);
  }

  #sentence(way) {
    const [done, undone] = verbs[way.source] ?? [way.op, way.op];
    const who = way.click?.who.name ?? way.actor?.name ?? 'Someone';
    const verb = way.op === 'removed' ? undone : done;
    const whom = way.click?.whom ?? way.recipient?.name;
    if (whom === undefined) return `${who} ${verb} someone`;
    const thing =
      way.source === 'post_like' || way.source === 'post_comment'
        ? whom === who
          ? 'an own post'
          : `${whom}’s post`
        : whom;
    return `${who} ${verb} ${thing}`;
  }

  #drawEmpty() {
    setText(this.headline, 'Click any Like to follow it here.');
    setText(this.total, '');
    this.steps.replaceChildren(...this.#rows(null));
  }

  #rows(way) {
    const who = way?.click?.who.name;
    const to = way?.recipient?.name;
    const here = (ms) => (ms === undefined ? undefined : this.#here(ms));
    const rows = [
      ['Click', who === undefined ? 'in a window' : `in ${who}’s window`, way?.click?.at],
      ['Row in the outbox', 'same transaction', here(way?.writtenAtMs)],
      ['Commit', 'the app’s backend has its answer', here(way?.committedAtMs)],
      ['Read', 'by the relay', here(way?.readAtMs)],
      [
        'Stored',
        to === undefined ? 'inbox, streams, cursor: one commit' : `${to}’s inbox: one commit`,
        here(way?.storedAtMs),
      ],
      ['Pushed', 'to the gateway', here(way?.pushedAtMs)],
      ['Arrived', to === undefined ? 'in a window' : `in ${to}’s window`, way?.arrivedAt],
    ];
    const start = way === null ? 0 : this.#start(way);
    const end = way === null ? 1 : Math.max(here(way.pushedAtMs), way.arrivedAt ?? 0);
    let before = start;
    return rows.map(([name, detail, at]) => {
      const known = typeof at === 'number';
      const from = known ? Math.min(before, at) : before;
      const bar = h('span', { class: 'bar' });
      if (known && way !== null && end > start) {
        bar.style.setProperty('--from', String(clamp((from - start) / (end - start))));
        bar.style.setProperty('--to', String(clamp((at - start) / (end - start))));
      }
      if (known) before = at;
      const last = name === 'Arrived' && way !== null && !known;
      const text = known ? formatMs(at - start) : last ? this.#why(way) : '–';
      return h(
        'li',
        { class: known ? 'step done' : 'step', 'data-step': name.toLowerCase() },
        h('span', { class: 'step-name' }, name, h('small', {}, detail)),
        h('span', { class: known ? 'ms' : 'ms words' }, text),
        bar,
      );
    });
  }

  /** Why nothing has arrived. */
  #why(way) {
    if (way.waiting) return this.#isHeld(way, now()) ? 'waits for its window' : '…';
    return 'rings nobody';
  }

  #isHeld(way, at) {
    return at - this.#here(way.pushedAtMs) > heldMs;
  }

  #draw() {
    const way = this.#shown;
    if (way === null) return;
    setText(this.headline, this.#sentence(way));
    if (way.arrivedAt === null) {
      const waiting = this.#isHeld(way, now()) ? 'Stored. Told at the end of its window.' : 'on its way';
      this.total.replaceChildren(h('span', { class: 'words' }, way.waiting ? waiting : 'Stored. It rings nobody.'));
    } else {
      const [number, unit] = formatDuration(way.arrivedAt - this.#start(way)).split(' ');
      const from = way.click === null ? 'commit' : 'click';
      const to = way.op === 'removed' ? 'gone' : way.rings ? 'bell' : 'update';
      const held = !way.rings && this.#isHeld(way, way.arrivedAt) ? ', at the end of its window' : '';
      this.total.replaceChildren(h('strong', {}, number), ` ${unit} from ${from} to ${to}${held}`);
    }
    this.steps.replaceChildren(...this.#rows(way));
    this.earlier.replaceChildren(
      ...this.#ways.filter((other) => other !== way).map((other) => this.#earlierRow(other)),
    );
  }

  #earlierRow(way) {
    const ms = way.arrivedAt === null ? (way.waiting ? '…' : '–') : formatDuration(way.arrivedAt - this.#start(way));
    const show = () => {
      this.#shown = way;
      this.#draw();
    };
    const symbol = { post_like: 'heart', post_comment: 'comment', user_follow: 'person' }[way.source] ?? 'close';
    return h(
      'li',
      {},
      h(
        'button',
        { type: 'button', onclick: show },
        icon(symbol),
        h('span', { class: 'earlier-text' }, this.#sentence(way)),
        h('span', { class: 'ms' }, ms),
      ),
    );
  }
}

function clamp(share) {
  return Math.min(1, Math.max(0, share));
}
