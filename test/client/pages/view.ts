/** A page for browser.test.ts: what a client was told, in `view`; `begin` connects. */

import { connect } from '../../../src/client/index.js';

const view = {
  list: {} as Record<string, string>,
  seqs: [] as number[],
  states: [] as string[],
  gaps: 0,
  status: '',
  statuses: [] as string[],
};
export type View = typeof view;

function begin(url: string, token: string): void {
  const client = connect({ url, token: () => token, storage: sessionStorage });
  client.on('notification', ({ id, message }, { seq }) => {
    view.list[id] = message;
    view.seqs.push(Number(seq));
  });
  client.on('withdrawn', ({ id }, { seq }) => {
    delete view.list[id];
    view.seqs.push(seq);
  });
  client.on('state', ({ state }, { seq }) => {
    view.states.push(state);
    view.seqs.push(seq);
  });
  client.on('gap', () => void view.gaps++);
  client.on('status', ({ status }) => {
    view.status = status;
    view.statuses.push(status);
  });
  Object.assign(globalThis, { client });
}

Object.assign(globalThis, { view, begin });
