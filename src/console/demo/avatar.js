/** A person's mark: one colour for each of the three, grey for the crowd. */
import { h } from './dom.js';

/** The class that carries a person's colour. */
export function hueOf(cast, id) {
  const at = cast.findIndex((member) => member.id === id);
  return at === -1 ? 'who-crowd' : `who-${at}`;
}

export function avatar(cast, id, name) {
  return h('span', { class: `avatar ${hueOf(cast, id)}`, 'aria-hidden': 'true' }, name.slice(0, 1));
}
