/** The doorbell, the traffic and the absence: what stands beside the three windows besides the way of one event. */
import { h, icon, replay, setText } from './dom.js';

/** Writes per second on the slider. */
const rates = [2, 10, 50, 100, 200, 500, 1000, 2000];
const awaySeconds = 10;

export class Panel {
  #state = null;
  #last = null;

  constructor({ backend }) {
    this.backend = backend;
    this.doorbell = this.#buildDoorbell();
    this.traffic = this.#buildTraffic();
    this.away = this.#buildAway();
    this.elements = [this.doorbell, h('div', { class: 'card controls' }, this.traffic, this.away)];
    setInterval(() => this.#showRate(), 1000);
  }

  /** The demo's state, as it is sent several times a second. */
  show(state) {
    const before = this.#state;
    this.#state = state;
    const { doorbell, simulator, belfry } = state;
    const gone = belfry.state !== 'running';
    this.doorbell.dataset.state = gone ? 'gone' : doorbell.state;
    setText(
      this.bellWord,
      gone ? 'Belfry is away' : doorbell.state === 'asleep' ? 'The relay sleeps' : 'The relay is awake',
    );
    setText(
      this.bellWhy,
      gone
        ? 'Writes go on into the outbox.'
        : doorbell.state === 'asleep'
          ? 'The next write rings the doorbell.'
          : 'No writer rings: it looks again by itself.',
    );
    setText(this.rings, doorbell.rings.toLocaleString('en'));
    setText(this.events, doorbell.events.toLocaleString('en'));
    if (before !== null && doorbell.rings > before.doorbell.rings) replay(this.doorbellIcon, 'ringing');
    if (simulator.rate > 0 && simulator.rate !== before?.simulator.rate) this.#slideTo(simulator.rate);
    this.#showTraffic(simulator);
    this.#showAway(belfry);
    // The client waits longer after each failed attempt, so that a crowd does not come back at once. Three may: it takes the
    // browser's word that the network is back.
    if (before !== null && before.belfry.state !== 'running' && !gone) window.dispatchEvent(new Event('online'));
  }

  /** The stream of states broke off. */
  lost() {
    this.doorbell.dataset.state = 'gone';
    setText(this.bellWord, 'The demo does not answer');
    setText(this.bellWhy, 'Is it still running?');
  }

  /** Events per second, over the last second; nothing is sent while nothing happens. */
  #showRate() {
    const at = performance.now();
    const { events } = this.#state?.doorbell ?? { events: 0 };
    if (this.#last !== null) {
      const rate = Math.round(((events - this.#last.events) * 1000) / (at - this.#last.at));
      setText(this.rate, Math.max(0, rate).toLocaleString('en'));
    }
    this.#last = this.#state === null ? null : { at, events };
  }

  #buildDoorbell() {
    this.doorbellIcon = h('span', { class: 'doorbell-icon' }, icon('bell'));
    this.bellWord = h('p', { class: 'doorbell-word' }, 'The relay sleeps');
    this.bellWhy = h('p', { class: 'doorbell-why' }, 'The next write rings the doorbell.');
    this.rings = h('dd', {}, '0');
    this.events = h('dd', {}, '0');
    this.rate = h('dd', {}, '0');
    const figure = (name, value) => h('div', {}, h('dt', {}, name), value);
    return h(
      'section',
      { class: 'card doorbell', 'data-state': 'asleep', 'aria-label': 'Doorbell' },
      this.doorbellIcon,
      h('div', { class: 'doorbell-text' }, this.bellWord, this.bellWhy),
      h(
        'dl',
        { class: 'figures' },
        figure('rings', this.rings),
        figure('events', this.events),
        figure('per second', this.rate),
      ),
    );
  }

  #buildTraffic() {
    this.slider = h('input', {
      id: 'rate',
      type: 'range',
      min: '0',
      max: String(rates.length - 1),
      step: '1',
      value: '3',
      oninput: () => this.#slid(),
      onchange: () => this.#changeRate(),
    });
    this.rateWord = h('output', { for: 'rate' });
    this.trafficButton = h(
      'button',
      { type: 'button', class: 'button', id: 'traffic', onclick: () => this.#toggle() },
      'Start',
    );
    this.trafficNote = h('p', { class: 'control-note' }, 'A crowd of 300 likes, comments and follows.');
    const element = h(
      'div',
      { class: 'control' },
      h('label', { for: 'rate' }, 'Traffic'),
      this.slider,
      this.rateWord,
      this.trafficButton,
      this.trafficNote,
    );
    this.#slid();
    return element;
  }

  #buildAway() {
    this.awayButton = h(
      'button',
      { type: 'button', class: 'button', id: 'away', onclick: () => this.#leave() },
      'Stop it',
    );
    this.awayNote = h('p', { class: 'control-note' }, `Stop Belfry for ${awaySeconds} s; the app goes on.`);
    return h(
      'div',
      { class: 'control' },
      h('span', { class: 'control-name' }, 'Outage'),
      this.awayNote,
      this.awayButton,
    );
  }

  /** The rate that runs may come from elsewhere: another page, or --simulate. */
  #slideTo(rate) {
    const nearest = rates.reduce((best, one) => (Math.abs(one - rate) < Math.abs(best - rate) ? one : best));
    this.slider.value = String(rates.indexOf(nearest));
    setText(this.rateWord, `${rate.toLocaleString('en')}/s`);
  }

  #slid() {
    const rate = rates[Number(this.slider.value)];
    setText(this.rateWord, `${rate.toLocaleString('en')}/s`);
    this.slider.setAttribute('aria-valuetext', `${rate} writes per second`);
  }

  #changeRate() {
    if ((this.#state?.simulator.rate ?? 0) > 0)
      this.#ask(() => this.backend.simulate(rates[Number(this.slider.value)]), this.trafficNote);
  }

  #toggle() {
    const running = (this.#state?.simulator.rate ?? 0) > 0;
    this.#ask(() => this.backend.simulate(running ? 0 : rates[Number(this.slider.value)]), this.trafficNote);
  }

  #leave() {
    this.#ask(() => this.backend.leave(awaySeconds), this.awayNote);
  }

  #ask(call, note) {
    call().catch((error) => setText(note, error.message));
  }

  #showTraffic({ rate, written, error }) {
    setText(this.trafficButton, rate > 0 ? 'Stop' : 'Start');
    this.trafficButton.classList.toggle('on', rate > 0);
    if (error !== null) setText(this.trafficNote, error);
    else if (rate > 0) setText(this.trafficNote, `${written.toLocaleString('en')} writes by a crowd of 300.`);
    else setText(this.trafficNote, 'A crowd of 300 likes, comments and follows.');
  }

  #showAway({ state, backInMs }) {
    this.awayButton.disabled = state !== 'running';
    if (state === 'running') setText(this.awayNote, `Stop Belfry for ${awaySeconds} s; the app goes on.`);
    else if (state === 'away')
      setText(this.awayNote, `Stopped. Back in ${Math.ceil(backInMs / 1000)} s; keep clicking.`);
    else setText(this.awayNote, state === 'stopping' ? 'Stopping: sessions are told…' : 'Starting…');
  }
}
