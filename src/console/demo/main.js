/** Puts the page together: three windows, each with a live session of its own, and what the demo tells about the way between. */
import { Backend } from './backend.js';
import { h, replay, setText } from './dom.js';
import { Pane } from './pane.js';
import { Panel } from './panel.js';
import { openSession } from './session.js';
import { WayPanel } from './way.js';

const clocksEveryMs = 30_000;

async function start() {
  const stage = document.getElementById('stage');
  const demo = await (await fetch('/demo/session.json')).json();
  const backend = new Backend(demo.backendPort);
  const names = new Map([...demo.cast, ...demo.crowd].map(({ id, name }) => [id, name]));
  const way = new WayPanel({ cast: demo.cast });
  const panel = new Panel({ backend });

  const only = new URLSearchParams(location.search).get('only');
  const people = demo.cast.filter(({ name }) => only === null || name.toLowerCase() === only);
  const clicked = (request, click) => way.clicked(request, click);
  let tell = () => undefined;
  const changed = (pane, what) => tell(pane, what);
  const panes = (people.length > 0 ? people : demo.cast).map(
    (person) => new Pane({ person, cast: demo.cast, names, backend, clicked, changed }),
  );
  const side = h(
    'aside',
    { class: 'side', 'aria-label': 'What happens between the windows' },
    way.element,
    ...panel.elements,
    colophon(demo),
  );
  stage.style.setProperty('--panes', String(panes.length));
  stage.classList.toggle('single', panes.length === 1);
  stage.replaceChildren(...panes.map(({ element }) => element), side);
  tell = buildTabs(stage, panes, side);

  await way.compareClocks(backend);
  setInterval(() => way.compareClocks(backend).catch(() => undefined), clocksEveryMs);
  watch(backend, way, panel);
  await Promise.all(
    panes.map(async (pane) => {
      const posts = await pane.load();
      pane.use(await openSession({ pane, posts, backend, way }));
    }),
  );
}

/** Server-Sent Events of the demo; the browser reconnects by itself. */
function watch(backend, way, panel) {
  const events = new EventSource(`${backend.base}/watch/events`);
  events.addEventListener('way', ({ data }) => way.add(JSON.parse(data)));
  events.addEventListener('state', ({ data }) => panel.show(JSON.parse(data)));
  events.addEventListener('error', () => panel.lost());
}

function colophon(demo) {
  return h(
    'p',
    { class: 'colophon' },
    `Clicks go to the app’s own backend at port ${demo.backendPort}, which knows nothing of Belfry: it writes its tables. `,
    'Page and sockets are at ',
    `port ${location.port === '' ? '80' : location.port}. `,
    'No login, on this machine only.',
  );
}

/** On a small screen one window at a time; the badge in a tab shows that another one rang. Returns what tells them. */
function buildTabs(stage, panes, side) {
  const nav = document.querySelector('.tabs');
  const tabs = new Map();
  const show = (element) => {
    for (const child of stage.children) child.classList.toggle('current', child === element);
    for (const [owner, { tab }] of tabs) tab.setAttribute('aria-pressed', String(owner === element));
  };
  const add = (element, name, hue, key) => {
    const badge = h('span', { class: 'badge', hidden: true }, '0');
    const tab = h(
      'button',
      { type: 'button', 'data-for': key, class: `tab ${hue}`, onclick: () => show(element) },
      h('span', {}, name),
      badge,
    );
    tabs.set(element, { tab, badge });
    nav.append(tab);
  };
  for (const { element, person, hue } of panes) add(element, person.name, hue, element.dataset.person);
  add(side, 'The way', '', 'way');
  show(panes[0].element);
  return (pane, { badge: unseen, rung }) => {
    const { tab, badge } = tabs.get(pane.element);
    if (unseen !== undefined) {
      setText(badge, unseen > 99 ? '99+' : String(unseen));
      badge.hidden = unseen === 0;
    }
    if (rung === true) replay(tab, 'rung');
  };
}

start().catch((error) => {
  const stage = document.getElementById('stage');
  stage.replaceChildren(h('p', { class: 'boot', role: 'alert' }, `The demo could not start: ${error.message}`));
});
